"""Feeds recordings to a pipeline over the real transports and compares what was delivered with what was fed."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path

import aiohttp
import msgspec

from adsbridge import config, recordings
from adsbridge.demo.receiver import Receiver
from adsbridge.errors import AdsbridgeError
from adsbridge.events import Alert, Event
from adsbridge.metrics import Metrics
from adsbridge.parse import detect, parse_all
from adsbridge.pipeline import Pipeline

_CONFIG = """\
sources:
  falco_http: {{type: falco_http, listen: "127.0.0.1:0"}}
  falco_file: {{type: falco_file, path: {folder}/falco.jsonl, poll: 50ms}}
  osquery_log: {{type: osquery_log, path: {folder}/osqueryd.results.log, poll: 50ms}}
sinks:
  console: {{type: console, format: {format}}}
  webhook: {{type: webhook, url: "{url}", secrets: ["whsec_{key}"]}}
spool: {{path: {folder}/spool.db}}
admin: null
"""
_LENGTH = 4.0  # seconds that the story takes, so that alerts appear one by one and in order
_PATIENCE = 30.0  # seconds until something that was not delivered counts as lost


class Outcome(msgspec.Struct):
    """What the demonstration came to.

    Attributes:
        fed: records fed, by source.
        expected: alerts that must arrive.
        delivered: alerts that the webhook's receiver got.
        missing: alerts expected that did not arrive, described.
        extra: alerts that arrived though nobody fed them, described.
        metrics: the pipeline's own count.
    """

    fed: Counter[str]
    expected: int
    delivered: int
    missing: list[str]
    extra: list[str]
    metrics: Metrics

    @property
    def right(self) -> bool:
        """Whether what was delivered is what was fed."""
        return not self.missing and not self.extra


def builtin() -> list[Path]:
    """The recordings that adsbridge brings."""
    folder = Path(__file__).parent / "recordings"
    return sorted(path for path in folder.iterdir() if path.suffix in {".jsonl", ".log"})


async def show(files: Sequence[Path], folder: Path, console_format: str) -> Outcome:
    """Run the demonstration on recordings, with its files in a folder.

    Raises:
        AdsbridgeError: the pipeline cannot start.
        OSError: a recording cannot be read.
    """
    key = secrets.token_bytes(32)
    receiver = Receiver(key)
    await receiver.start()
    text = _CONFIG.format(folder=folder, format=console_format, url=receiver.url, key=base64.b64encode(key).decode())
    loaded = config.parse(text)
    pipeline = Pipeline(loaded)
    await pipeline.start()
    try:
        records = _in_order(record for path in files for record, _ in recordings.read(path))
        events = parse_all(detect.parse, ((record, b"") for record in records)).events
        processed = await loaded.processing().process(events, Metrics())
        expected = [one.alert for one in processed if not one.suppressed]
        fed = await _feed(records, folder, pipeline.sources["falco_http"])
        await _wait_for(receiver, len(expected))
    finally:
        await pipeline.stop()
        await receiver.stop()
    want, have = Counter(map(_describe, expected)), Counter(map(_describe, receiver.alerts.values()))
    return Outcome(
        fed, len(expected), len(receiver.alerts), list((want - have).elements()), list((have - want).elements()),
        pipeline.metrics,
    )  # fmt: skip


def _in_order(records: Iterable[bytes]) -> list[bytes]:
    """The records by the time of their first event; one that has none stays behind the one before it."""
    time = ""
    timed = []
    for record in records:
        events = parse_all(detect.parse, [(record, b"")]).events
        time = events[0].time if events else time
        timed.append((time, record))
    return [record for _, record in sorted(timed, key=itemgetter(0))]


async def _feed(records: Sequence[bytes], folder: Path, url: str) -> Counter[str]:
    """Falco's alerts by HTTP and by file in turn, as its outputs write them; osquery's lines to its log."""
    fed: Counter[str] = Counter()
    async with aiohttp.ClientSession() as session:
        for record in records:
            await asyncio.sleep(_LENGTH / len(records))
            source = _source(record, fed)
            fed[source] += 1
            if source == "falco_http":
                async with session.post(url, data=record) as response:
                    if response.status not in {200, 400}:
                        raise AdsbridgeError(f"the listener answered {response.status} to a recorded alert")
            else:
                name = "falco.jsonl" if source == "falco_file" else "osqueryd.results.log"
                with (folder / name).open("ab") as file:
                    file.write(record + b"\n")
    return fed


def _source(record: bytes, fed: Counter[str]) -> str:
    parsed = parse_all(detect.parse, [(record, b"")])
    if parsed.events and parsed.events[0].sensor == "osquery":
        return "osquery_log"
    if not parsed.events and not parsed.rejected:  # osquery's headers and empty batches
        return "osquery_log"
    return "falco_http" if fed["falco_http"] <= fed["falco_file"] else "falco_file"


async def _wait_for(receiver: Receiver, count: int) -> None:
    for _ in range(int(_PATIENCE / 0.05)):
        if len(receiver.alerts) >= count:
            return
        await asyncio.sleep(0.05)


def _describe(alert: Event | Alert) -> str:
    # A text line tells no date, so its time depends on when it is read.
    time = "" if alert.detection.startswith("(") else alert.time
    return f"{time} {alert.sensor} {alert.detection} {alert.summary}"
