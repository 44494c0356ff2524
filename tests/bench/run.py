"""Measures the bridge and prints a table: ``make bench``.

Costs are processor time of the bridge's process per alert, as ratios to the floor measured in the same run: one core
that decodes the same alerts, encodes them again and writes them to a file. Takes about three minutes and 5 GB of disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.peers import alerts
from support.bridge import Bridge

PEERS = Path(__file__).with_name("peers.py")
TICK = os.sysconf("SC_CLK_TCK")

CONFIG = """\
sources:
  http: {{type: falco_http, listen: "127.0.0.1:0"}}
  file: {{type: falco_file, path: {folder}/alerts.jsonl}}
sinks:
  webhook: {{type: webhook, url: "http://127.0.0.1:{port}/"}}
spool: {{path: {folder}/spool.db, max_size: 8GiB}}
admin: {{listen: "127.0.0.1:0"}}
"""


def floor(count: int) -> float:
    """Seconds of processor time per alert to decode, encode and write it."""
    lines = list(alerts(count))
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    with tempfile.TemporaryFile() as file:
        start = time.process_time()
        for line in lines:
            file.write(encode(decode(line)) + b"\n")
        file.flush()
        return (time.process_time() - start) / count


class Usage:
    """Processor and wall time of a process since this was made."""

    def __init__(self, bridge: Bridge) -> None:
        assert bridge.process is not None
        self._pid = bridge.process.pid
        self._cpu, self._wall = self._ticks(), time.monotonic()

    def _ticks(self) -> int:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    @property
    def cpu(self) -> float:
        """Seconds of processor time."""
        return (self._ticks() - self._cpu) / TICK

    @property
    def wall(self) -> float:
        """Seconds."""
        return time.monotonic() - self._wall

    def memory(self, key: str) -> float:
        """A figure of /proc/PID/status, in MiB."""
        line = next(line for line in Path(f"/proc/{self._pid}/status").read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024


def metric(bridge: Bridge, name: str) -> float:
    """The sum of a metric's values."""
    lines = [line for line in bridge.metrics().splitlines() if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def wait_for(bridge: Bridge, name: str, value: float) -> None:
    """Wait until a metric has reached a value."""
    while metric(bridge, name) < value:
        time.sleep(0.2)


@contextmanager
def receiver() -> Iterator[int]:
    """A receiver's port."""
    process = subprocess.Popen([sys.executable, PEERS, "receiver"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def write(folder: Path, count: int) -> None:
    """Put alerts where the file source reads them, all at once."""
    path = folder / "alerts.jsonl.new"
    with path.open("wb") as file:
        for alert in alerts(count):
            file.write(alert + b"\n")
    path.rename(folder / "alerts.jsonl")


def by_file(count: int) -> tuple[float, float]:
    """(processor, wall) seconds per alert from file to webhook."""
    with tempfile.TemporaryDirectory() as name, receiver() as port:
        folder = Path(name)
        with Bridge(CONFIG.format(folder=folder, port=port), folder) as bridge:
            usage = Usage(bridge)
            write_start = time.monotonic()
            write(folder, count)
            writing = time.monotonic() - write_start
            wait_for(bridge, "adsbridge_alerts_delivered_total", count)
            return usage.cpu / count, (usage.wall - writing) / count


def by_http(count: int) -> tuple[float, float]:
    """(processor, wall) seconds per alert, each in a POST of its own answered after its commit."""
    with tempfile.TemporaryDirectory() as name, receiver() as port:
        folder = Path(name)
        with Bridge(CONFIG.format(folder=folder, port=port), folder) as bridge:
            listening = bridge.source_url("http").rstrip("/").rsplit(":", 1)[1]
            usage = Usage(bridge)
            subprocess.run([sys.executable, PEERS, "sender", listening, str(count)], check=True, capture_output=True)
            wall = usage.wall
            wait_for(bridge, "adsbridge_alerts_delivered_total", count)
            return usage.cpu / count, wall / count


def backlog(count: int) -> tuple[float, float]:
    """(most memory in MiB, bytes on disk per alert) with a backlog that nobody takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Bridge(CONFIG.format(folder=folder, port=9), folder) as bridge:
            usage = Usage(bridge)
            write(folder, count)
            wait_for(bridge, "adsbridge_spool_alerts", count)
            return usage.memory("VmHWM"), metric(bridge, "adsbridge_spool_bytes") / count


def idle(seconds: float) -> float:
    """Share of a core that an idle bridge takes."""
    with tempfile.TemporaryDirectory() as name, receiver() as port:
        folder = Path(name)
        (folder / "alerts.jsonl").touch()
        with Bridge(CONFIG.format(folder=folder, port=port), folder) as bridge:
            time.sleep(1)
            usage = Usage(bridge)
            time.sleep(seconds)
            return usage.cpu / seconds


def main() -> None:
    """Measure and print."""
    base = floor(50_000)
    print(f"{'':<44}{'CPU/alert':>11}{'x floor':>9}{'per s and core':>16}{'per s, wall':>13}")

    def row(name: str, cpu: float, wall: float | None = None) -> None:
        seen = f"{1 / wall:>13,.0f}" if wall else ""
        print(f"{name:<44}{cpu * 1e6:>8.1f} µs{cpu / base:>9.1f}{1 / cpu:>16,.0f}{seen}", flush=True)

    row("floor: decode, encode, write", base)
    row("file to webhook, batches of 500", *by_file(200_000))
    row("one alert per POST, 32 connections", *by_http(40_000))
    memory, disk = backlog(1_000_000)
    print(f"most memory at a backlog of a million alerts    {memory:.0f} MiB ({disk:.0f} bytes on disk per alert)")
    print(f"idle                                            {idle(20):.2%} of a core")


if __name__ == "__main__":
    main()
