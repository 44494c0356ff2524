"""Components: every one of ours describes itself, and another package adds its own by an entry point."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from pydantic import BaseModel

from adsbridge import config
from adsbridge.components import KINDS, Component, Kind, registry
from adsbridge.config import DEFAULT
from adsbridge.reference import settings_rows
from support.command import adsbridge

EVERY = [(kind, component) for kind in KINDS for component in registry(kind).values()]
every_component = pytest.mark.parametrize(("kind", "component"), EVERY, ids=[one.type for _, one in EVERY])

ACME = '''
from pydantic import Field

from adsbridge.components import Settings
from adsbridge.enrich.base import Enricher
from adsbridge.sinks.base import Sink
from adsbridge.sources.base import Source


class PagerSettings(Settings):
    url: str = Field(description="Where the pager listens")
    loud: bool = Field(False, description="Whether it wakes people")


class Pager(Sink):
    """Wakes somebody.

    At any hour.
    """

    type = "acme_pager"
    Config = PagerSettings
    example = "url: https://pager.example/"

    async def send(self, batch):
        for alert in batch.alerts:
            print("PAGED", alert.id)


class Nothing(Settings):
    pass


class Mailbox(Source):
    """Takes Falco's alerts from a mailbox."""

    type = "acme_mailbox"
    sensors = frozenset({"falco"})
    Config = Nothing

    async def start(self, intake):
        pass

    async def stop(self):
        pass


class Owner(Enricher):
    """Looks up who owns a container."""

    type = "acme_owner"
    Config = Nothing

    async def enrich(self, alerts):
        for alert in alerts:
            alert.enrichment = {**alert.enrichment, "owner": "unknown"}


class Taken(Pager):
    type = "console"


class Unfinished(Sink):
    """Cannot send."""

    Config = Nothing


class WrongConfig(Pager):
    type = "wrong"
    Config = dict


not_a_class = 5
'''


def distribution(folder: Path, entries: str) -> Path:
    """A folder with an installed distribution ``acme`` that has these entry points."""
    (folder / "acme.py").write_text(ACME)
    info = folder / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entries))
    return folder


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """A distribution with a source, an enricher and a sink."""
    entries = """\
        [adsbridge.sources]
        mailbox = acme:Mailbox
        [adsbridge.enrichers]
        owner = acme:Owner
        [adsbridge.sinks]
        pager = acme:Pager
        """
    return distribution(tmp_path, entries)


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


@every_component
def test_every_component_describes_itself(kind: Kind, component: type[Component]) -> None:
    """A type, a docstring whose first line is one sentence, a description for each setting, and an example."""
    assert component.type.isidentifier()
    assert component.summary().endswith(".")
    assert "\n" not in component.summary()
    assert component.example, kind
    assert not inspect.isabstract(component)
    for key, _, description in settings_rows(component.Config):
        assert description, f"{component.type}: {key} is not described"
        assert not description.endswith("."), f"{component.type}: {key}"


@every_component
def test_every_example_is_a_right_configuration(kind: Kind, component: type[Component], tmp_path: Path) -> None:
    """The example of the documentation is accepted as it stands."""
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=")
    example = component.example.replace("/etc/adsbridge/webhook.secret", str(secret))
    settings = textwrap.indent(f"type: {component.type}\n{example}", "    ")
    other = DEFAULT.partition("sinks:")[0] if kind == "sinks" else "sinks: {out: {type: console}}\n"
    text = f"{other}{kind}:\n  mine:\n{settings}\n"
    assert "mine" in getattr(config.parse(text), kind)


@every_component
def test_no_setting_model_takes_unknown_keys(kind: Kind, component: type[Component]) -> None:
    """A typing mistake in any setting, nested ones included, cannot pass silently."""

    def check(model: type[BaseModel]) -> None:
        assert model.model_config.get("extra") == "forbid", f"{kind} {component.type}: {model.__name__}"
        for field in model.model_fields.values():
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    check(inner)

    check(component.Config)


def test_another_packages_components_are_listed(acme: Path) -> None:
    """The listing shows them by their type and summary, and one's settings by its name."""
    listed = adsbridge("components", python_path=acme)
    assert listed.returncode == 0
    assert "acme_pager       Wakes somebody." in listed.stdout
    assert "acme_mailbox     Takes Falco's alerts from a mailbox." in listed.stdout
    assert "acme_owner       Looks up who owns a container." in listed.stdout
    one = adsbridge("components", "acme_pager", python_path=acme).stdout
    for words in ("At any hour.", "url: https://pager.example/", "Whether it wakes people", "retry.max_wait"):
        assert words in one


def test_another_packages_components_are_configured(acme: Path, tmp_path: Path) -> None:
    """The configuration takes them, checks their settings, and knows which sensor the source brings."""
    text = """\
        sources: {mail: {type: acme_mailbox}}
        enrichers: {owner: {type: acme_owner}}
        sinks: {pager: {type: acme_pager, url: "https://pager.example/", retry: {max_wait: 5m}}}
        routes: [{name: a, match: {sensor: falco}, sinks: [pager]}]
        """
    path = write(tmp_path / "c.yaml", text)
    checked = adsbridge("check", "--offline", "-c", path, python_path=acme)
    assert (checked.returncode, checked.stderr) == (0, "")
    write(path, text.replace("url:", "uri:").replace("{sensor: falco}", "{sensor: osquery}"))
    wrong = adsbridge("check", "--offline", "-c", path, python_path=acme)
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines() == [
        f"{path}:3:9: sinks.pager.url: is missing",
        f"{path}:3:35: sinks.pager.uri: unknown key; did you mean 'url'?",
        f"{path}:4:36: routes.0.match.sensor: can never match: there is no source for osquery",
        "3 mistakes",
    ]


def test_another_packages_components_work(acme: Path, tmp_path: Path) -> None:
    """Its enricher adds to alerts, and its sink gets them."""
    text = """\
        sources: {mail: {type: acme_mailbox}}
        enrichers: {owner: {type: acme_owner}}
        sinks: {pager: {type: acme_pager, url: "https://pager.example/"}}
        """
    alert = b'{"rule": "A", "priority": "Error", "output": "x", "time": "2026-11-21T20:27:53.1Z"}\n'
    path = write(tmp_path / "c.yaml", text)
    replayed = adsbridge("replay", "--deliver", "-", "-c", path, stdin=alert, python_path=acme)
    assert replayed.returncode == 0, replayed.stderr
    assert '"enrichment":{"owner":"unknown"}' in replayed.stdout
    assert "PAGED " in replayed.stdout


def test_another_packages_components_are_documented(acme: Path, tmp_path: Path) -> None:
    """The reference made where the package is installed has their tables."""
    path = os.pathsep.join(filter(None, [str(acme), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "adsbridge.reference", str(tmp_path)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)
    page = (tmp_path / "configuration.md").read_text()
    assert "### acme_pager\n\nWakes somebody.\n\nAt any hour.\n\n```yaml\nmine:\n  type: acme_pager\n" in page
    assert "| `loud` | `false` | Whether it wakes people |" in page


def test_the_documented_example_works(tmp_path: Path) -> None:
    """The sink that the documentation shows is a component as it stands there, and its example is right."""
    page = Path(__file__).parents[2] / "docs" / "writing-components.md"
    found = re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert found is not None
    distribution(tmp_path, "[adsbridge.sinks]\npager = acme:Pager\n")
    (tmp_path / "acme.py").write_text(found[1])
    path = write(
        tmp_path / "c.yaml",
        """\
        sources: {falco: {type: falco_http}}
        sinks: {mine: {type: pager, url: "https://pager.example/", token: "${PAGER_TOKEN}"}}
        """,
    )
    checked = adsbridge("check", "--offline", "-c", path, python_path=tmp_path, PAGER_TOKEN="x")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "pager            Pages whoever is on call" in adsbridge("components", python_path=tmp_path).stdout


BROKEN = [
    ("sinks", "pager = acme:Taken", "the type 'console' is taken"),
    ("sinks", "pager = acme:Unfinished", "the class Unfinished has no send, type"),
    ("sinks", "pager = acme:WrongConfig", "its Config does not extend adsbridge.components.Settings"),
    ("sinks", "pager = acme:not_a_class", "expected a class that extends adsbridge.sinks.base.Sink"),
    ("sinks", "pager = acme:Mailbox", "expected a class that extends adsbridge.sinks.base.Sink"),
    ("sources", "x = acme:Pager", "expected a class that extends adsbridge.sources.base.Source"),
    ("enrichers", "x = acme:Nope", "cannot be loaded: AttributeError: module 'acme' has no attribute 'Nope'"),
    ("enrichers", "x = nowhere:Nope", "cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"),
]


@pytest.mark.parametrize(("kind", "entry", "expected"), BROKEN)
def test_a_broken_component_is_a_clear_error(tmp_path: Path, kind: str, entry: str, expected: str) -> None:
    """What cannot be loaded or is no component names the package and its entry point, with exit status 2."""
    folder = distribution(tmp_path, f"[adsbridge.{kind}]\n{entry}\n")
    ended = adsbridge("components", python_path=folder)
    assert ended.returncode == 2
    assert ended.stderr.strip().startswith(f"adsbridge: package acme, entry point adsbridge.{kind}: {entry}")
    assert expected in ended.stderr
