"""A log file is read without losing or repeating a line: through rotations, restarts and bad lines."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from support.bridge import PATIENCE, wait_until
from support.ledger import Ledger
from support.log import Log, append, line


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 2 * PATIENCE))


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
            await asyncio.to_thread(wait_until, lambda: log.ledger.failures, "the first refusal")
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
            await asyncio.to_thread(wait_until, lambda: log.ledger.failures >= 2, "a second attempt")
            log.write("third")
            log.ledger.broken = False
            await log.ledger.holds("first", "second", "third")

    run(test())
    assert capsys.readouterr().out.count("the disk is full") == 1


def test_a_file_that_cannot_be_read_is_told_once(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    """While a path leads nowhere, the source says so once; when it leads to the file, it is read.

    A link to itself stands for a missing permission, which root would not miss.
    """

    async def test() -> None:
        log.path.symlink_to(log.path)
        async with log.tail():
            await asyncio.to_thread(wait_until, lambda: log.ledger.asked >= 3, "a third attempt")
            log.path.unlink()
            log.write("first")
            await log.ledger.holds("first")

    run(test())
    said = capsys.readouterr().out
    assert said.count("trying again") == said.count("symbolic links") == 1


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
