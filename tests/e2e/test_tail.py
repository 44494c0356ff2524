"""A log file is read without losing or repeating a line: through rotations, restarts and bad lines."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from adsbridge.parse import KEPT_BYTES
from adsbridge.sources.falco_file import FalcoFile
from adsbridge.sources.osquery_log import OsqueryLog
from adsbridge.store import Store
from support.bridge import PATIENCE, Bridge, wait_until
from support.ledger import Ledger, Running
from support.samples import DATA


def line(*names: object) -> bytes:
    """Alerts of Falco's by the names of their rules."""
    return b"".join(json.dumps({"rule": str(name), "output": "x" * 20}).encode() + b"\n" for name in names)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 2 * PATIENCE))


class Log:
    """A log and the sources that read it, one after the other, into one ledger."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.jsonl"
        self.ledger = Ledger()
        self.settings: dict[str, Any] = {"path": str(self.path), "poll": "10ms"}

    def tail(self, **settings: Any) -> Running:
        return Running(FalcoFile("log", FalcoFile.Config.model_validate({**self.settings, **settings})), self.ledger)

    def write(self, *names: object) -> None:
        append(self.path, line(*names))

    def rename(self) -> Path:
        """Rotate as logrotate does without copytruncate; the generation just made."""
        self.make_room()
        return self.path.rename(self.generation(1))

    def make_room(self) -> None:
        for number in range(8, 0, -1):
            generation = self.generation(number)
            if generation.exists():
                generation.rename(self.generation(number + 1))

    def generation(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def copytruncate(self) -> None:
        """Rotate as logrotate does with copytruncate."""
        self.make_room()
        shutil.copyfile(self.path, self.generation(1))
        os.truncate(self.path, 0)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_file_that_appears_later_is_read_from_its_beginning(log: Log) -> None:
    """The bridge may start before the sensor: the file, even its folder, may come later."""

    async def test() -> None:
        log.path = log.path.parent / "later" / "events.jsonl"
        async with log.tail(path=str(log.path)):
            await asyncio.sleep(0)
            log.path.parent.mkdir()
            log.write("first", "second")
            await log.ledger.holds("first", "second")

    run(test())


def test_a_partial_last_line_is_completed_later(log: Log) -> None:
    """A line counts when its end is there, whatever pieces it comes in."""

    async def test() -> None:
        async with log.tail():
            log.write("first")
            await log.ledger.holds("first")
            for byte in line("second"):
                append(log.path, bytes([byte]))
                await asyncio.sleep(0)
            await log.ledger.holds("first", "second")
        assert log.ledger.rejected == []

    run(test())


def test_a_partial_last_line_is_completed_after_a_restart(log: Log) -> None:
    """The checkpoint stands before a line that was not whole."""

    async def test() -> None:
        whole = line("second")
        append(log.path, line("first") + whole[:9])
        async with log.tail():
            await log.ledger.holds("first")
        append(log.path, whole[9:])
        async with log.tail():
            await log.ledger.holds("first", "second")
        assert log.ledger.rejected == []

    run(test())


def test_a_last_line_without_an_end_counts_when_the_file_was_rotated(log: Log) -> None:
    """Nothing more can come to a file whose writer has gone on to the next."""

    async def test() -> None:
        append(log.path, line("first") + line("second").removesuffix(b"\n"))
        async with log.tail():
            await log.ledger.holds("first")
            log.rename()
            log.write("third")
            await log.ledger.holds("first", "second", "third")
        async with log.tail():
            log.write("fourth")
            await log.ledger.holds("first", "second", "third", "fourth")

    run(test())


def test_rename_and_create_while_running(log: Log) -> None:
    """Rotation after rotation, each line is read once."""

    async def test() -> None:
        names = ["first"]
        log.write(*names)
        async with log.tail():
            await log.ledger.holds(*names)
            for number in range(8):
                names += [f"{number}a", f"{number}b"]
                log.write(*names[-2:])
                if number % 2:
                    await log.ledger.holds(*names)
                log.rename()
            log.write("last")
            await log.ledger.holds(*names, "last")

    run(test())


def test_the_writer_goes_on_in_the_old_file_until_the_new_one_has_data(log: Log) -> None:
    """Logrotate makes the new file before the sensor opens it: what is written meanwhile is read, too."""

    async def test() -> None:
        log.write("first")
        async with log.tail():
            await log.ledger.holds("first")
            old = log.rename()
            log.path.touch()
            for number in range(3):
                append(old, line(f"late {number}"))
                await log.ledger.holds("first", *(f"late {earlier}" for earlier in range(number + 1)))
            append(old, line("very late"))
            log.write("new")
            await log.ledger.holds("first", "late 0", "late 1", "late 2", "very late", "new")

    run(test())


def test_two_rotations_while_the_bridge_is_down(log: Log) -> None:
    """Started again, it reads the rest of the file it was in, then .1, then the live one."""

    async def test() -> None:
        log.write("first")
        async with log.tail():
            await log.ledger.holds("first")
        log.write("second")
        log.rename()
        log.write("third", "fourth")
        log.rename()
        assert log.generation(2).exists()
        log.write("fifth")
        async with log.tail():
            await log.ledger.holds("first", "second", "third", "fourth", "fifth")

    run(test())


def test_copytruncate_while_running(log: Log) -> None:
    """The file is copied and cut off under the reader, with and without lines that it has not read."""

    async def test() -> None:
        names = []
        async with log.tail():
            for number in range(6):
                names += [f"{number}a", f"{number}b"]
                log.write(names[-2])
                await log.ledger.holds(*names[:-1])
                log.write(names[-1])
                if number % 2:
                    await log.ledger.holds(*names)
                log.copytruncate()
            log.write("last")
            await log.ledger.holds(*names, "last")

    run(test())


@pytest.mark.parametrize("unread", [(), ("unread", "rest")])
@pytest.mark.parametrize("after", [(), ("new",), tuple(range(50))])
def test_copytruncate_while_the_bridge_is_down(log: Log, unread: tuple[str, ...], after: tuple[Any, ...]) -> None:
    """The unread rest stands in the copy; the file itself starts anew, shorter or longer than it was."""

    async def test() -> None:
        log.write("first", "second")
        async with log.tail():
            await log.ledger.holds("first", "second")
        log.write(*unread)
        log.copytruncate()
        log.write(*after)
        async with log.tail():
            await log.ledger.holds("first", "second", *unread, *map(str, after))
            log.write("last")
            await log.ledger.holds("first", "second", *unread, *map(str, after), "last")

    run(test())


def test_two_copytruncates_while_the_bridge_is_down(log: Log) -> None:
    """The place is found in the older copy by its content, since copies have inodes of their own."""

    async def test() -> None:
        log.write("first")
        async with log.tail():
            await log.ledger.holds("first")
        log.write("second")
        log.copytruncate()
        log.write("third")
        log.copytruncate()
        log.write("fourth")
        async with log.tail():
            await log.ledger.holds("first", "second", "third", "fourth")

    run(test())


def test_an_inode_used_again_is_another_file(log: Log) -> None:
    """Deleted and created while the bridge was down, a file may get the inode that the deleted one had."""

    async def test() -> None:
        log.write("first", "second")
        async with log.tail():
            await log.ledger.holds("first", "second")
        inode = log.path.stat().st_ino
        for _ in range(100):  # until the file system gives the number again
            log.path.unlink()
            log.path.touch()
            if log.path.stat().st_ino == inode:
                break
        log.write("third", "fourth", "fifth")
        async with log.tail():
            await log.ledger.holds("first", "second", "third", "fourth", "fifth")

    run(test())


def test_a_file_deleted_and_created_while_running_is_read_anew(log: Log) -> None:
    """What was written before the deletion is read from the open file, what comes after from the new one."""

    async def test() -> None:
        log.write("first")
        async with log.tail():
            await log.ledger.holds("first")
            log.write("second")
            log.path.unlink()
            log.write("third")
            await log.ledger.holds("first", "second", "third")

    run(test())


@pytest.mark.parametrize("running", [True, False])
def test_a_file_cut_off_without_a_copy_is_read_anew(
    log: Log, running: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can give back what was cut off; the reader says that lines may be missing, and goes on."""

    async def test() -> None:
        log.write("first", "second", "third")
        async with log.tail():
            await log.ledger.holds("first", "second", "third")
            if running:
                log.path.write_bytes(line("fourth"))
                await log.ledger.holds("first", "second", "third", "fourth")
        if not running:
            log.path.write_bytes(line("fourth"))
        async with log.tail():
            await log.ledger.holds("first", "second", "third", "fourth")

    run(test())
    assert "lines may be missing" in capsys.readouterr().out


def test_every_restart_reads_each_line_once(log: Log) -> None:
    """The checkpoint moves with the lines that it covers: stopped anywhere, the next start goes on there."""

    async def test() -> None:
        for number in range(20):
            log.write(f"{number}a", f"{number}b")
            async with log.tail():
                await log.ledger.holds(*(f"{earlier}{half}" for earlier in range(number + 1) for half in "ab"))

    run(test())
    assert len(set(log.ledger.ids)) == len(log.ledger.ids) == 40


def test_start_end_skips_what_was_there_and_nothing_else(log: Log) -> None:
    """With start: end, lines from before the first start are left out; what comes later is read, restart or not."""

    async def test() -> None:
        log.write("before")
        async with log.tail(start="end"):
            await saved(log.ledger)
        log.write("while it was down")
        async with log.tail(start="end"):
            log.write("later")
            await log.ledger.holds("while it was down", "later")

    run(test())


def test_start_end_and_a_file_that_appears_later(log: Log) -> None:
    """All of a file that was not there at the first start came after it, even if the bridge was down by then."""

    async def test() -> None:
        async with log.tail(start="end"):
            await saved(log.ledger)
        log.write("first")
        log.rename()
        log.write("second")
        async with log.tail(start="end"):
            await log.ledger.holds("first", "second")

    run(test())


def test_start_end_survives_a_spool_that_cannot_be_written(log: Log) -> None:
    """Lines that come while the spool refuses are not skipped when it takes again."""

    async def test() -> None:
        log.write("before")
        log.ledger.broken = True
        async with log.tail(start="end"):
            await asyncio.to_thread(wait_until, lambda: log.ledger.refused, "the first refusal")
            log.write("meanwhile")
            log.ledger.broken = False
            await log.ledger.holds("meanwhile")

    run(test())


async def saved(ledger: Ledger) -> None:
    await asyncio.to_thread(wait_until, lambda: ledger.saved, "the first checkpoint")


def test_a_spool_that_cannot_be_written_stops_nothing_for_good(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    """The reader tries again from its checkpoint and says so once; each line is taken once in the end."""

    async def test() -> None:
        log.write("first")
        async with log.tail():
            await log.ledger.holds("first")
            log.ledger.broken = True
            log.write("second")
            await asyncio.to_thread(wait_until, lambda: log.ledger.refused >= 2, "a second attempt")
            log.write("third")
            log.ledger.broken = False
            await log.ledger.holds("first", "second", "third")

    run(test())
    assert capsys.readouterr().out.count("the disk is full") == 1


def test_a_defect_stops_no_source_for_good(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    """Even a checkpoint that is none is told, tried again, and got over when it is mended."""

    async def test() -> None:
        log.write("first")
        log.ledger.saved["log"] = "nonsense"
        async with log.tail():
            await asyncio.to_thread(wait_until, lambda: "trying again" in capsys.readouterr().out, "a message")
            del log.ledger.saved["log"]
            await log.ledger.holds("first")

    run(test())


def test_line_ends_of_windows_and_empty_lines(log: Log) -> None:
    """A carriage return before the line end is no part of the line; an empty line says nothing."""

    async def test() -> None:
        append(log.path, line("first").replace(b"\n", b"\r\n") + b"\r\n\n \n" + line("second"))
        async with log.tail():
            await log.ledger.holds("first", "second")
        assert log.ledger.rejected == []

    run(test())


def test_bad_lines_are_kept_beside_their_good_neighbours(log: Log) -> None:
    """NUL bytes, invalid UTF-8, broken and deep JSON: each bad line is a dead letter of its own, with its bytes."""
    bad = [b"\0\0\0", b"\xff\xfe", b'{"rule": "x"', b'{"rule":1}', b'{"rule":"x","output_fields":{"a":' * 10_000]

    async def test() -> None:
        for number, one in enumerate(bad):
            append(log.path, line(number) + one + b"\n")
        log.write("last")
        async with log.tail():
            await log.ledger.holds("0", "1", "2", "3", "4", "last")

    run(test())
    assert [one.payload for one in log.ledger.rejected] == [one[:KEPT_BYTES] for one in bad]
    assert [one.reason for one in log.ledger.rejected] == [
        "not_falco", "not_falco", "not_json", "wrong_shape", "too_deep",
    ]  # fmt: skip


def test_a_line_longer_than_allowed_is_cut_off_and_told(log: Log) -> None:
    """One byte more than max_line makes a dead letter that holds the line's beginning; a byte less does not."""
    longest = line("just right")[:-1]
    limit = len(longest)

    async def test() -> None:
        append(log.path, line("1") + longest + b"\n" + b"y" * (limit + 1) + b"\n" + line("2"))
        async with log.tail(max_line=f"{limit}B"):
            await log.ledger.holds("1", "just right", "2")

    run(test())
    (rejected,) = log.ledger.rejected
    assert (rejected.reason, rejected.payload) == ("too_long", b"y" * limit)
    assert "max_line" in rejected.detail


def test_a_text_alert_with_a_line_end_is_whole_wherever_it_stands(log: Log) -> None:
    """Alerts of two lines are put together across every border that reading in portions has."""
    alert = "20:30:09.846478093: Warning Sensitive file | command=cat /tmp/%07d\n" + "y" * 900 + " container_id=c%d"
    count = 3 * 2**20 // len(alert)

    async def test() -> None:
        append(log.path, b"".join((alert % (number, number)).encode() + b"\n" for number in range(count)))
        log.write("last")
        async with log.tail():
            await log.ledger.holds(*["(Falco text output)"] * count, "last")

    run(test())
    assert log.ledger.rejected == []


def test_osquerys_status_log_is_read_with_its_head(tmp_path: Path) -> None:
    """osqueryd.WARNING starts with four lines about itself; they are no events and no mistakes."""
    ledger = Ledger()
    path = DATA / "osquery/audit/osqueryd.WARNING"

    async def test() -> None:
        async with Running(OsqueryLog("s", OsqueryLog.Config.model_validate({"path": str(path)})), ledger):
            await ledger.holds("osquery status")

    run(test())
    assert ledger.rejected == []


# From here on, the bridge runs in a process of its own.


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
    path.write_bytes(b"\n" * 3_000_000 + line("after"))
    with Bridge(config(tmp_path, path), tmp_path) as bridge:
        wait_until(lambda: delivered(tmp_path) == ["after"], "the line behind them")
        assert peak_memory(bridge) < 200 * 2**20


def peak_memory(bridge: Bridge) -> int:
    assert bridge.process is not None
    status = Path(f"/proc/{bridge.process.pid}/status").read_text()
    return int(next(one.split()[1] for one in status.splitlines() if one.startswith("VmHWM"))) * 1024


def test_a_file_that_cannot_be_read_is_told_once_and_recovered_from(tmp_path: Path) -> None:
    """While a path leads nowhere, the bridge runs, says so once, and reads the file when it can.

    A link to itself stands for a missing permission, which root would not miss.
    """
    path = tmp_path / "events.jsonl"
    path.symlink_to(path)
    with Bridge(config(tmp_path, path), tmp_path) as bridge:
        wait_until(lambda: "trying again" in bridge.log, "the message")
        time.sleep(1.5)  # beyond the second attempt: what is said a second time would be in the log by then
        path.unlink()
        append(path, line("first"))
        wait_until(lambda: delivered(tmp_path) == ["first"], "the alert")
        assert bridge.log.count("trying again") == 1
        assert "symbolic links" in bridge.log


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
