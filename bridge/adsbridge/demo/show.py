"""Feeds recordings to a pipeline over the real transports and compares what was delivered with what was fed."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path

import aiohttp
import msgspec

from adsbridge import config, recordings
from adsbridge.demo.receiver import Receiver
from adsbridge.errors import AdsbridgeError
from adsbridge.events import Alert
from adsbridge.metrics import Metrics
from adsbridge.parse import Parsed, detect, falco, parse_all
from adsbridge.pipeline import Pipeline
from adsbridge.processing import Processing

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
_PATIENCE = 30.0  # seconds without any progress until what was not delivered counts as lost


class Outcome(msgspec.Struct):
    """What the demonstration came to.

    Attributes:
        fed: records fed, by source.
        repeated: alerts that came by HTTP a second time, word for word: the same alert with the same id.
        expected: alerts that must arrive.
        delivered: alerts that the webhook's receiver got.
        missing: alerts expected that did not arrive, described.
        extra: alerts that arrived though nobody fed them, described.
        unreadable: records fed that hold no alert that can be understood.
        metrics: the pipeline's own count.
    """

    fed: Counter[str]
    repeated: int
    expected: int
    delivered: int
    missing: list[str]
    extra: list[str]
    unreadable: int
    metrics: Metrics

    @property
    def right(self) -> bool:
        """Whether what was delivered is what was fed, and what could not be read is kept as dead letters."""
        kept = sum(self.metrics.total(self.metrics.dead_letters).values())
        return not self.missing and not self.extra and kept == self.unreadable


class _Feed:
    """Recorded records and the transport that each takes; what must come of them.

    Falco's alerts go by HTTP and through a file in turn, as its outputs write them. Its text alerts go by HTTP only:
    in a file, a line that is not understood would belong to the text alert above it. That very line goes into the
    file. osquery's lines go to its log.
    """

    def __init__(self, processing: Processing) -> None:
        self._processing = processing
        self._known: set[str] = set()
        self.fed: Counter[str] = Counter()
        self.expected: list[Alert] = []
        self.repeated = self.unreadable = 0

    async def take(self, record: bytes) -> str:
        """Note what must come of the record; the source to feed it to."""
        parsed = parse_all(detect.parse, [(record, b"")])
        self.unreadable += len(parsed.rejected)
        source = self._source(record, parsed)
        self.fed[source] += 1
        for one in await self._processing.replay(parsed.events):
            if source == "falco_http" and one.alert.id in self._known:
                self.repeated += 1
            elif not one.suppressed:
                self.expected.append(one.alert)
            if source == "falco_http":
                self._known.add(one.alert.id)
        return source

    def _source(self, record: bytes, parsed: Parsed) -> str:
        if parsed.rejected:
            return "falco_file"
        # What holds no event is Falco's closing statistics, or osquery's headers and empty batches.
        of_falco = parsed.events[0].sensor == "falco" if parsed.events else _is_falcos(record)
        if not of_falco:
            return "osquery_log"
        by_http = record[:1] != b"{" or self.fed["falco_http"] <= self.fed["falco_file"]
        return "falco_http" if by_http else "falco_file"


def _is_falcos(record: bytes) -> bool:
    return not parse_all(falco.parse, [(record, b"")]).rejected


def builtin() -> list[Path]:
    """The recordings that adsbridge brings."""
    folder = Path(__file__).parent / "recordings"
    return sorted(path for path in folder.iterdir() if path.suffix in {".jsonl", ".log"})


async def show(files: Sequence[Path], folder: Path, console_format: str, *, length: float = 0.0) -> Outcome:
    """Run the demonstration on recordings.

    Args:
        files: the recordings.
        folder: for the files of the sources and the spool.
        console_format: ``text`` or ``json``.
        length: seconds that it takes at least, for alerts to appear one by one and in order.

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
    feed = _Feed(loaded.processing())
    try:
        records = _in_order(record for path in files for record, _ in recordings.read(path))
        async with aiohttp.ClientSession() as session:
            for record in records:
                await asyncio.sleep(length / len(records))
                source = await feed.take(record)
                if source == "falco_http":
                    await _post(session, pipeline.sources[source], record)
                else:
                    _append(Path(pipeline.sources[source]), record)
        await _settle(pipeline, feed.fed.total())
    finally:
        await pipeline.stop()
        await receiver.stop()
    want, have = Counter(map(_describe, feed.expected)), Counter(map(_describe, receiver.alerts.values()))
    return Outcome(
        fed=feed.fed,
        repeated=feed.repeated,
        expected=len(feed.expected),
        delivered=len(receiver.alerts),
        missing=list((want - have).elements()),
        extra=list((have - want).elements()),
        unreadable=feed.unreadable,
        metrics=pipeline.metrics,
    )


async def _post(session: aiohttp.ClientSession, url: str, record: bytes) -> None:
    async with session.post(url, data=record) as response:
        if response.status != 200:
            raise AdsbridgeError(f"the listener answered {response.status} to a recorded alert")


def _in_order(records: Iterable[bytes]) -> list[bytes]:
    """The records by the time of their first event; one that has none stays behind the one before it."""
    time = ""
    timed = []
    for record in records:
        events = parse_all(detect.parse, [(record, b"")]).events
        time = events[0].time if events else time
        timed.append((time, record))
    return [record for _, record in sorted(timed, key=itemgetter(0))]


def _append(path: Path, record: bytes) -> None:
    with path.open("ab") as file:
        file.write(record + b"\n")


async def _settle(pipeline: Pipeline, fed: int) -> None:
    """Wait until every record was taken and no alert waits any more, or nothing has moved for long."""
    moved, before = time.monotonic(), (-1.0, -1)
    while time.monotonic() - moved < _PATIENCE:
        taken = sum(pipeline.metrics.total(pipeline.metrics.received).values())
        waiting = pipeline.waiting.get("webhook", 0)
        if taken >= fed and not waiting:
            return
        if (taken, waiting) != before:
            moved, before = time.monotonic(), (taken, waiting)
        await asyncio.sleep(0.05)


def _describe(alert: Alert) -> str:
    # A text line tells no date, so its time depends on when it is read.
    time_of = "" if alert.detection.startswith("(") else alert.time
    return f"{time_of} {alert.sensor} {alert.detection} {alert.summary}".strip()
