"""What every sink in the registry keeps to, whoever wrote it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import yaml

from adsbridge import config
from adsbridge.components import Settings, registry
from adsbridge.errors import ConfigError, SendError, StartError
from adsbridge.events import Alert, encode, to_alert
from adsbridge.parse import falco
from adsbridge.sinks.base import Batch, Sink
from support import alerts
from support.receiver import Receiver

SINKS = cast("dict[str, type[Sink]]", registry("sinks"))
EVERY = pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)


class Workable(NamedTuple):
    """Settings that work here, what arrived by now, and settings with which nothing can be sent."""

    settings: dict[str, Any]
    arrived: Callable[[], list[dict[str, Any]]]
    hopeless: dict[str, Any] | None


Destination = Callable[[type[Sink]], Workable]


@pytest.fixture
def destination(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Destination]:
    """Where each sink can send to; a new sink adds itself here."""
    with Receiver() as receiver:

        def lines() -> list[dict[str, Any]]:
            path = tmp_path / "alerts.jsonl"
            return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

        def printed() -> list[dict[str, Any]]:
            return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

        (tmp_path / "a-file").touch()
        known = {
            "console": Workable({"format": "json"}, printed, None),
            "file": Workable({"path": tmp_path / "alerts.jsonl"}, lines, {"path": tmp_path / "a-file/below"}),
            "webhook": Workable({"url": receiver.url}, lambda: receiver.alerts, {"url": "http://127.0.0.1:1/"}),
        }
        yield lambda sink: known[sink.type]


def some_alerts(count: int = 3) -> list[Alert]:
    return [to_alert(falco.parse(alerts.falco(f"alert-{number}"))[0]) for number in range(count)]


def make(sink: type[Sink], settings: dict[str, Any]) -> Sink:
    return sink("mine", sink.Config.model_validate(settings))


async def send(sink: Sink, batch: Batch) -> None:
    async with asyncio.timeout(30):
        await sink.open()
        await sink.send(batch)
        await sink.close()


@EVERY
def test_it_describes_itself(sink: type[Sink]) -> None:
    """A sink has a name for the configuration, a one-line summary, and describes every setting."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*", sink.type)
    assert re.fullmatch(r"\S.*\S\.", sink.summary())
    assert issubclass(sink.Config, Settings)
    for name, field in sink.Config.model_fields.items():
        inner = field.annotation
        assert field.description or (isinstance(inner, type) and issubclass(inner, Settings)), name


@EVERY
def test_its_example_is_right(sink: type[Sink], tmp_path: Path) -> None:
    """The example in the documentation is a configuration that the check accepts."""
    secret = tmp_path / "secret"
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    example = yaml.safe_load(re.sub(r"\$\{file:[^}]*\}", f"${{file:{secret}}}", sink.example))
    whole = {"sources": {"falco": {"type": "falco_http"}}, "sinks": {"mine": {"type": sink.type, **(example or {})}}}
    loaded = config.parse(yaml.safe_dump(whole))
    assert isinstance(loaded.sinks["mine"].settings, sink.Config)


@EVERY
def test_an_unknown_setting_is_a_mistake(sink: type[Sink], destination: Destination) -> None:
    """A misspelt setting is refused, not ignored."""
    settings = {name: str(value) for name, value in destination(sink).settings.items()}
    whole = {
        "sources": {"falco": {"type": "falco_http"}},
        "sinks": {"mine": {"type": sink.type, **settings, "no_such_setting": 1}},
    }
    with pytest.raises(ConfigError, match="no_such_setting: unknown key"):
        config.parse(yaml.safe_dump(whole))


@EVERY
def test_it_delivers_a_batch_whole_and_in_order(sink: type[Sink], destination: Destination) -> None:
    """What a sink took is at the destination when send returns: every alert, in order, as it was given."""
    workable = destination(sink)
    batch = [encode(alert) for alert in some_alerts()]
    asyncio.run(send(make(sink, workable.settings), Batch(batch)))
    assert workable.arrived() == [json.loads(payload) for payload in batch]


@EVERY
def test_the_same_batch_may_be_sent_again(sink: type[Sink], destination: Destination) -> None:
    """Sending a batch again, and opening a sink's files anew in between, is always possible."""
    workable = destination(sink)
    batch = Batch([encode(alert) for alert in some_alerts(1)])

    async def twice() -> None:
        working = make(sink, workable.settings)
        await working.open()
        await working.send(batch)
        working.reopen()
        await working.send(batch)
        await working.close()

    asyncio.run(twice())
    assert len(workable.arrived()) == 2


@EVERY
def test_a_probe_sends_no_alert(sink: type[Sink], destination: Destination) -> None:
    """The connection check succeeds where sending would, and delivers nothing."""
    workable = destination(sink)

    async def probe() -> None:
        working = make(sink, workable.settings)
        await working.probe()
        await working.close()

    asyncio.run(probe())
    assert workable.arrived() == []


@EVERY
def test_a_hopeless_destination_is_our_error(sink: type[Sink], destination: Destination) -> None:
    """Where nothing can be sent, opening, probing or sending raises an error of ours that names the destination."""
    settings = destination(sink).hopeless
    if settings is None:
        pytest.skip(f"{sink.type} has no destination that can be missing")

    with pytest.raises((StartError, SendError), match=r"127\.0\.0\.1:1|a-file/below"):
        asyncio.run(make(sink, settings).probe())


@EVERY
def test_closing_is_always_possible(sink: type[Sink], destination: Destination) -> None:
    """A sink that was never opened, or never sent anything, can be closed."""
    workable = destination(sink)

    async def close() -> None:
        async with asyncio.timeout(30):
            await make(sink, workable.settings).close()
            opened = make(sink, workable.settings)
            await opened.open()
            await opened.close()

    asyncio.run(close())
