"""``adsbridge strategies``, ``components`` and ``packs``: what is there, in words, and whether it is right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from adsbridge import content
from adsbridge.components import KINDS, registry
from adsbridge.strategy import SECTIONS
from support.command import DATA, quick


def test_strategies_are_listed() -> None:
    """One line each: id, priority, status, how many detections, title."""
    ended = quick("strategies")
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert [line.split()[0] for line in lines][:3] == ["ADS-0001", "ADS-0002", "ADS-0003"]
    assert lines[0].split()[1:3] == ["high", "experimental"]
    assert "detections  A process in a container scans the network" in lines[0]


def test_a_strategys_document_is_printed() -> None:
    """First the steps and the detections, then the whole document; the id in any case."""
    ended = quick("strategies", "ads-0001")
    assert ended.returncode == 0
    text = ended.stdout
    order = [text.index(words) for words in ("ADS-0001 A process", "First steps\n  1. ", "Detections\n", "## Goal")]
    assert order == sorted(order)
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == list(SECTIONS)
    assert "falco    high           Network Scan Started in Container" in text


def test_an_alerts_link_leads_to_its_document() -> None:
    """The id on an alert names the document, and its link the file that is printed from."""
    ended = quick("replay", DATA / "falco/main/file_output.jsonl")
    alert = next(one for one in map(json.loads, ended.stdout.splitlines()) if "strategy" in one)
    strategy = alert["strategy"]
    printed = quick("strategies", strategy["id"]).stdout
    assert printed.startswith(f"{strategy['id']} {strategy['title']}\n")
    assert f"/{strategy['link']}\n" in printed
    assert all(step in printed for step in strategy["first_steps"])


def test_an_unknown_strategy_is_told() -> None:
    """Status 1, with those that there are."""
    ended = quick("strategies", "ADS-9999")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "there is no strategy 'ADS-9999'; there are ADS-0001, " in ended.stderr


def test_strategies_of_further_folders_are_listed(tmp_path: Path) -> None:
    """With a configuration, its folders' strategies are there, too."""
    own = content.folder("strategies") / "ADS-0001-network-reconnaissance-from-a-container.md"
    text = own.read_text().replace("id: ADS-0001", "id: ADS-9001")
    head, start, rest = text.partition("detections:\n")
    text = head + start + "  - falco: My Own Rule\n" + rest[rest.index("first_steps:") :]
    for line in ("    techniques: ", "    severity: "):
        assert line not in text.partition("first_steps:")[0].rpartition("detections:")[2]
    (tmp_path / "mine.md").write_text(text)
    config = tmp_path / "c.yaml"
    config.write_text(
        "sources: {a: {type: falco_http}}\nsinks: {b: {type: console}}\n"
        f"strategies: {{folders: [{tmp_path}]}}\n"
    )
    ended = quick("strategies", "-c", config)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "ADS-9001" in ended.stdout


def test_components_are_listed_with_their_summaries() -> None:
    """Every source, enricher and sink stands on a line with its kind and the first line of its description."""
    listed = quick("components").stdout.splitlines()
    every = [(kind, one) for kind in KINDS for one in registry(kind).values()]
    assert len(listed) == len(every)
    for kind, component in every:
        assert any(line.split()[:2] == [kind, component.type] and component.summary() in line for line in listed)


def test_a_component_shows_its_settings() -> None:
    """An example, the description and each setting; of a sink also those that all sinks have."""
    text = quick("components", "webhook").stdout
    for words in (
        "type: webhook",
        "url: https://soc.example.com/alerts",
        "Redirects are not followed.",
        "retry.max_wait",
    ):
        assert words in text
    assert "    2xx" not in text
    assert "retry.max_wait" not in quick("components", "falco_http").stdout


def test_an_unknown_component_is_told() -> None:
    """Status 1, with the nearest name."""
    ended = quick("components", "webhok")
    assert ended.returncode == 1
    assert "there is no component 'webhok'; did you mean 'webhook'?" in ended.stderr


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of our packs."""
    return Path(shutil.copytree(content.folder("packs"), tmp_path / "packs"))


def test_packs_are_built_from_their_queries(root: Path) -> None:
    """Build writes what is out of step and says so; --verify only tells, with status 1; afterwards all is in step."""
    assert quick("packs", "build", "--verify", "--root", root).returncode == 0
    assert quick("packs", "build", "--verify").returncode == 0
    conf = root / "container_monitoring.conf"
    before = conf.read_text()
    query = next((root / "container_monitoring").glob("*.sql"))
    query.write_text(query.read_text().replace("-- interval: ", "-- interval: 1"))
    verified = quick("packs", "build", "--verify", "--root", root)
    assert (verified.returncode, conf.read_text()) == (1, before)
    assert f"{conf}: out of step with {root}/container_monitoring/*.sql; run `adsbridge packs build`" in verified.stderr
    built = quick("packs", "build", "--root", root)
    assert (built.returncode, built.stdout) == (0, f"wrote {conf}\n")
    assert conf.read_text() != before
    assert quick("packs", "build", "--verify", "--root", root).returncode == 0


def test_packs_are_checked_as_osquery_does_not(root: Path) -> None:
    """Our own are right; a column that no table has is told with file and line, status 1; so is a bad header."""
    right = quick("packs", "check")
    assert right.returncode == 0
    assert right.stdout.endswith("queries are right\n")
    query = root / "container_monitoring" / "container_connection_fan_out.sql"
    query.write_text(query.read_text().replace("p.cgroup_path,", "p.cgroup_paht,"))
    wrong = quick("packs", "check", "--root", root)
    line = query.read_text().splitlines().index("  p.cgroup_paht,") + 1
    assert (wrong.returncode, wrong.stderr) == (1, f"{query}:{line}: no such column: p.cgroup_paht\n")
    query.write_text("SELECT 1;")
    assert f"{query}:1: expected a header" in quick("packs", "check", "--root", root).stderr


def test_a_folder_without_queries_is_not_right(tmp_path: Path) -> None:
    """A wrong --root is told, rather than passing as no query that is wrong."""
    for command in ("check", "build"):
        ended = quick("packs", command, "--root", tmp_path)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert f"{tmp_path}: no query; expected one folder per pack" in ended.stderr
