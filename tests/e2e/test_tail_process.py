"""``adsbridge run`` on a log or standard input: everything arrives, memory is bounded, SIGKILL costs nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adsbridge.parse import KEPT_BYTES
from adsbridge.store import Store
from support.bridge import PATIENCE, Bridge, wait_until
from support.http import peak_memory
from support.log import Log, line


def config(folder: Path, path: Path | str, **source: Any) -> str:
    return json.dumps(
        {
            "sources": {"log": {"type": "falco_file", "path": str(path), "poll": "20ms", **source}},
            "sinks": {"out": {"type": "file", "path": str(folder / "alerts.jsonl")}},
            "spool": {"path": str(folder / "spool.db")},
            "admin": {"listen": "127.0.0.1:0"},
        }
    )


def delivered(folder: Path) -> list[str]:
    path = folder / "alerts.jsonl"
    found = path.read_bytes().splitlines() if path.exists() else []
    return [json.loads(one)["detection"] for one in found]


def from_stdin(folder: Path, **stdin: Any) -> subprocess.CompletedProcess[bytes]:
    path = folder / "adsbridge.yaml"
    path.write_text(config(folder, "-"))
    return subprocess.run(
        [sys.executable, "-m", "adsbridge", "run", "-c", str(path)],
        capture_output=True, timeout=PATIENCE, check=False, **stdin,
    )  # fmt: skip


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_standard_input_as_a_pipe(tmp_path: Path, end: bytes) -> None:
    """When the pipe ends, with or without a last line end, the bridge delivers everything and ends with 0."""
    ended = from_stdin(tmp_path, input=line(*range(2000))[:-1] + end)
    assert ended.returncode == 0, ended.stderr
    assert delivered(tmp_path) == [str(number) for number in range(2000)]


def test_standard_input_as_a_file(tmp_path: Path) -> None:
    """A file redirected into the bridge is read to its end; bad lines become dead letters as everywhere."""
    (tmp_path / "recorded").write_bytes(line("first") + b"bad\n" + line("second"))
    with (tmp_path / "recorded").open("rb") as stdin:
        ended = from_stdin(tmp_path, stdin=stdin)
    assert ended.returncode == 0, ended.stderr
    assert delivered(tmp_path) == ["first", "second"]
    assert [letter.payload for letter in Store(tmp_path / "spool.db").dead_letters()] == [b"bad"]


def test_standard_input_that_is_empty(tmp_path: Path) -> None:
    """Under systemd standard input is /dev/null: the bridge ends at once, rather than to wait for ever."""
    ended = from_stdin(tmp_path, stdin=subprocess.DEVNULL)
    assert (ended.returncode, delivered(tmp_path)) == (0, [])


def test_a_line_of_a_hundred_megabytes(tmp_path: Path) -> None:
    """Its neighbours are delivered, its beginning becomes a dead letter, and memory stays bounded."""
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        file.write(line("before"))
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + line("after"))
    with Bridge(config(tmp_path, path), tmp_path) as bridge:
        wait_until(lambda: delivered(tmp_path) == ["before", "after"], "its neighbours")
        assert peak_memory(bridge) < 200 * 2**20
    (letter,) = Store(tmp_path / "spool.db").dead_letters()
    assert (letter.reason, letter.payload) == ("too_long", b"x" * KEPT_BYTES)


def test_a_file_of_line_ends(tmp_path: Path) -> None:
    """A file of nothing but line ends takes no more memory than any other."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n" * 2_000_000 + line("after"))
    with Bridge(config(tmp_path, path), tmp_path) as bridge:
        wait_until(lambda: delivered(tmp_path) == ["after"], "the line behind them")
        assert peak_memory(bridge) < 200 * 2**20


@pytest.mark.parametrize("seed", [20261121])
def test_nothing_is_lost_or_repeated_when_the_bridge_is_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    """A writer appends and rotates in either way while the bridge is killed: each line is committed once."""
    path = tmp_path / "events.jsonl"
    text = config(tmp_path, path).replace(
        json.dumps({"type": "file", "path": str(tmp_path / "alerts.jsonl")}),
        json.dumps({"type": "webhook", "url": "http://127.0.0.1:9/", "retry": {"first_wait": "1h", "max_wait": "1h"}}),
    )
    assert "webhook" in text
    bridge = Bridge(text, tmp_path).start()
    dice = random.Random(seed)
    ending = threading.Event()
    written: list[str] = []
    writer = threading.Thread(target=write, args=(path, dice.randrange(2**32), ending, written))
    writer.start()
    try:
        for _ in range(6):
            enough = len(written) + dice.randrange(1000)
            wait_until(lambda enough=enough: len(written) > enough, "the writer")
            bridge.kill()
            bridge.start()
    finally:
        ending.set()
        writer.join()
    wait_until(lambda: alerts_kept(tmp_path) >= len(written), "the last line")
    bridge.kill()
    found = committed(tmp_path)
    assert Counter(found) == Counter(written)
    assert found == written


def write(path: Path, seed: int, ending: threading.Event, written: list[str]) -> None:
    """Write lines, at times in two pieces, and rotate in either way now and then."""
    dice = random.Random(seed)
    log = Log(path.parent)
    file = path.open("ab", buffering=0)
    began, rotations = 0, 0  # how much was written before this file
    while not ending.is_set():
        for _ in range(dice.randrange(1, 10)):
            name = f"{len(written)}"
            data = line(name)
            cut = dice.choice([len(data), dice.randrange(len(data))])
            file.write(data[:cut])
            file.write(data[cut:])
            written.append(name)
        time.sleep(0.002)  # the pace of a busy sensor
        if len(written) < began + 300 or rotations == 8 or dice.random() > 0.02:
            continue
        rotations += 1
        # A file of which nothing was read looks the same before and after it was cut off.
        if alerts_kept(path.parent) > began and dice.random() < 0.5:
            log.copytruncate()
        else:
            log.rename()
            path.touch()
            file.write(line(f"late {rotations}"))
            written.append(f"late {rotations}")
            file.close()
            file = path.open("ab", buffering=0)
        began = len(written)
    file.close()


def alerts_kept(folder: Path) -> int:
    """How many alerts are in the spool."""
    store = Store(folder / "spool.db")
    try:
        return sum(depth.alerts for depth in store.depths().values())
    finally:
        store.close()


def committed(folder: Path) -> list[str]:
    """The detections in the spool, in order."""
    store = Store(folder / "spool.db")
    try:
        batches = store.waiting("out", 0, 10**9)
        return [json.loads(payload)["detection"] for batch in batches for payload in batch.payloads]
    finally:
        store.close()
