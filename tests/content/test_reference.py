"""The reference pages are made from the code, are in step with it, and leave nothing without a word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adsbridge import reference
from adsbridge.config import General
from adsbridge.delivery import DeliverySettings
from adsbridge.metrics import Metrics
from adsbridge.routing import Match, Route

DOCS = Path(__file__).parents[2] / "docs"


def test_pages_are_in_step_with_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    """What is checked in is what the code makes now."""
    assert reference.main(["--verify", str(DOCS)]) == 0, capsys.readouterr().err


def test_a_page_out_of_step_is_told_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--verify names each page that differs or is missing and writes nothing; without it, they are written."""
    (tmp_path / "alert.md").write_text("old")
    assert reference.main([str(tmp_path), "--verify"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in told] == [str(tmp_path / name) for name in reference.PAGES]
    assert (tmp_path / "alert.md").read_text() == "old"
    assert reference.main([str(tmp_path)]) == 0
    assert reference.main(["--verify", str(tmp_path)]) == 0


def test_every_field_of_an_alert_is_described() -> None:
    """Each field, nested ones with their path, has a type and a meaning, and stands there once."""
    rows = list(reference.alert_rows())
    names = [name for name, _, _ in rows]
    assert len(set(names)) == len(names) > 50
    assert {"id", "time", "process.command_line", "attack[].successor", "strategy.first_steps[]"} <= set(names)
    assert [name for name, kind, meaning in rows if not kind or not meaning] == []


@pytest.mark.parametrize("model", [General, Route, Match, DeliverySettings])
def test_every_setting_is_described(model: type) -> None:
    """No key of the configuration is without its meaning."""
    assert [key for key, _, meaning in reference.settings_rows(model) if not meaning] == []


def test_defaults_are_shown_as_they_are_written() -> None:
    """A duration, a size and an address stand in the table as a person writes them in the file."""
    defaults = {key: default for key, default, _ in reference.settings_rows(General)}
    assert defaults["spool.max_size"] == "1GiB"
    assert defaults["drain_timeout"] == "10s"
    assert defaults["admin.listen"] == "127.0.0.1:2802"
    assert defaults["admin.tls.key"] == "needed in admin.tls"


def test_every_metric_stands_in_its_page() -> None:
    """Whatever /metrics may show is documented under the name that it has there."""
    page = (DOCS / "metrics.md").read_text()
    shown = {line.split()[2] for line in Metrics().text().decode().splitlines() if line.startswith("# TYPE")}
    shown = {name for name in shown if not name.endswith("_created")}  # the library's own, one for each counter
    assert [name for name in shown if f"`{name}`" not in page] == []


PAGES = sorted([*DOCS.glob("*.md"), *(DOCS.parent / name for name in ("README.md", "CHANGELOG.md"))])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file of the project, and to a heading in it, has its target."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
            assert heading in slugs, link


def _named(pattern: str) -> list[tuple[str, str]]:
    return [(page.name, name) for page in PAGES for name in re.findall(pattern, page.read_text())]


def test_metrics_that_pages_name_exist() -> None:
    """No page tells a person to watch a metric that there is not."""
    exposed = Metrics().text().decode()
    known = {line.split()[2] for line in exposed.splitlines() if line.startswith("# TYPE")}
    known |= {f"{name}{suffix}" for name in known for suffix in ("_bucket", "_count", "_sum")}
    assert [found for found in _named(r"\b(adsbridge_[a-z_]+)\b") if found[1] not in known] == []
