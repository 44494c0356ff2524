"""Every line of a log is read once and in order, whatever is done to its file and whenever the reader is killed.

Hypothesis plays the writer, logrotate and SIGKILL against the reader on real files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from adsbridge.sources._lines import TooLong
from adsbridge.sources._reader import Reader
from adsbridge.sources.generations import Position

LIMIT = 1000


class LogUnderRotation(RuleBasedStateMachine):
    """A log, what was written into it, and a reader whose commits are all that survives its death."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="adsbridge-reader-"))
        self.path = self.folder / "events.jsonl"
        self.file = self.path.open("ab", buffering=0)
        self.number = 0
        self.begun = b""
        self.written: list[bytes] = []
        self.committed: list[bytes] = []
        self.position: Position | None = None
        self.reader: Reader | None = None
        self.handed_out = 0  # lines that the reader returned, committed or not

    @initialize()
    def start(self) -> None:
        # The first commit is made when there is something to tell the file by.
        self.write(1, 20)
        self.read(1, True)

    def line(self, size: int) -> bytes:
        self.number += 1
        line = b"%06d " % self.number + b"x" * size
        self.written.append(line)
        return line

    @rule(count=st.integers(1, 5), size=st.sampled_from([1, 20, 500]))
    def write(self, count: int, size: int) -> None:
        self.finish_line()
        self.file.write(b"".join(self.line(size) + b"\n" for _ in range(count)))

    @rule(size=st.integers(10, 500), after=st.integers(8, 17))
    def write_the_beginning_of_a_line(self, size: int, after: int) -> None:
        self.finish_line()
        line = self.line(size) + b"\n"
        self.file.write(line[:after])
        self.begun = line[after:]

    @rule()
    def finish_line(self) -> None:
        self.file.write(self.begun)
        self.begun = b""

    def make_room(self) -> Path:
        number = max([int(path.suffix[1:]) for path in self.folder.glob("events.jsonl.*")], default=0)
        for older in range(number, 0, -1):
            self.generation(older).rename(self.generation(older + 1))
        return self.generation(1)

    def generation(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    @rule(create=st.booleans(), late=st.integers(0, 3), reads=st.integers(0, 2))
    def rename(self, create: bool, late: int, reads: int) -> None:
        """The writer goes on in the old file for a while, as a program does until it is told of the rotation."""
        self.path.rename(self.make_room())
        if create:
            self.path.touch()
        self.read(reads, True)
        if late:
            self.write(late, 20)
        self.finish_line()
        self.file.close()
        self.file = self.path.open("ab", buffering=0)

    def has_begun_this_file(self) -> bool:
        """A file of which nothing was read looks the same before and after it was cut off."""
        at = self.reader.start if self.reader else self.position
        there = self.path.stat()
        return at is not None and (at.offset > 0 or at.inode != there.st_ino) and there.st_size > 0

    @precondition(has_begun_this_file)
    @rule()
    def copytruncate(self) -> None:
        self.finish_line()
        shutil.copyfile(self.path, self.make_room())
        os.truncate(self.path, 0)

    @rule(times=st.integers(1, 6), commit=st.booleans())
    def read(self, times: int, commit: bool) -> None:
        """Read; what is returned but not committed is lost with the reader."""
        for _ in range(times):
            if self.reader is None:
                self.reader = Reader(self.path, LIMIT, self.position, at_end=False)
            lines = self.reader.lines()
            if not lines:
                continue
            if not commit:
                self.kill()
                return
            for line, _, _ in lines:
                assert not isinstance(line, TooLong)
                self.committed.append(line)
            self.position = self.reader.position(lines[-1][2])
            assert not self.reader.gap

    @rule()
    def kill(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def teardown(self) -> None:
        try:
            self.write(1, 1)
            self.read(3 * len(list(self.folder.iterdir())) + 5, True)
            assert self.committed == self.written
        finally:
            self.kill()
            self.file.close()
            shutil.rmtree(self.folder)


TestLogUnderRotation: Any = LogUnderRotation.TestCase
TestLogUnderRotation.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def read_all(reader: Reader) -> list[bytes]:
    """Every line there is now."""
    found: list[bytes] = []
    while True:
        lines = reader.lines()
        found += [line for line, _, _ in lines if isinstance(line, bytes)]
        if not lines and not reader.advanced:
            return found


def end_of(log: Path) -> Position:
    """The position behind all that is in a file."""
    reader = Reader(log, LIMIT, None, at_end=True)
    position = reader.start
    reader.close()
    return position


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"1 first line\n2 second line\n")
    return path


def test_a_line_written_just_before_the_rotation_is_not_skipped(log: Path) -> None:
    """Between the reader's last look at the old file and its look at the new one, the writer may use both."""

    class Busy(type(log)):  # type: ignore[misc]
        def stat(self, **options: Any) -> os.stat_result:
            if old.exists() and not self.exists():
                with old.open("ab") as file:
                    file.write(b"3 written last\n")
                log.write_bytes(b"4 in the new file\n")
            return os.stat(log)

        def exists(self, **_: Any) -> bool:
            return os.path.exists(log)

    old = log.with_name("events.jsonl.1")
    reader = Reader(Busy(log), LIMIT, None, at_end=False)
    assert len(read_all(reader)) == 2
    log.rename(old)
    assert read_all(reader) + read_all(reader) == [b"3 written last", b"4 in the new file"]
    reader.close()


def test_generations_that_passed_while_an_open_file_was_removed_are_read(log: Path) -> None:
    """A reader that is far behind holds a file that rotation has removed: what came after it is not skipped."""
    reader = Reader(log, LIMIT, None, at_end=False)
    os.utime(log, (1, 1))
    log.unlink()
    for age, name in ((2, "events.jsonl.2"), (3, "events.jsonl.1"), (4, "events.jsonl")):
        log.with_name(name).write_bytes(b"in %s\n" % name.encode())
        os.utime(log.with_name(name), (age, age))
    assert read_all(reader)[2:] == [b"in events.jsonl.2", b"in events.jsonl.1", b"in events.jsonl"]
    reader.close()


def test_a_file_that_is_cut_off_and_removed_is_waited_for(log: Path) -> None:
    """With nothing left to read, the reader is idle; a new file is read from its beginning."""
    reader = Reader(log, LIMIT, None, at_end=False)
    assert len(read_all(reader)) == 2
    os.truncate(log, 0)
    log.unlink()
    assert read_all(reader) == []
    assert reader.gap
    log.write_bytes(b"3 new\n")
    assert read_all(reader) == [b"3 new"]
    reader.close()


def test_the_number_of_a_generation_tells_its_place(log: Path) -> None:
    """Whatever their times: the higher number is older, the later date newer."""
    for names in (("events.jsonl.2", "events.jsonl.1"), ("events.jsonl-20261121", "events.jsonl-20261122")):
        position = end_of(log)
        log.rename(log.with_name(names[0]))
        log.with_name(names[1]).write_bytes(b"3 newer\n")
        log.write_bytes(b"4 newest\n")
        for name in (*names, log.name):
            os.utime(log.with_name(name), (5, 5))
        os.utime(log.with_name(names[0]), (6, 6))
        reader = Reader(log, LIMIT, position, at_end=False)
        assert read_all(reader) == [b"3 newer", b"4 newest"]
        reader.close()
        for name in names:
            log.with_name(name).unlink()
        log.write_bytes(b"1 first line\n2 second line\n")


def test_a_folder_named_like_a_generation_is_no_generation(log: Path) -> None:
    """Logrotate's olddir may stand beside the log under any name."""
    log.with_name("events.jsonl-2026").mkdir()
    position = end_of(log)
    log.rename(log.with_name("events.jsonl.1"))
    log.write_bytes(b"3 third\n")
    reader = Reader(log, LIMIT, position, at_end=False)
    assert read_all(reader) == [b"3 third"]
    reader.close()


def test_a_line_begun_goes_on_in_the_copy_that_copytruncate_made(log: Path) -> None:
    """Half a line was read when the file was copied and cut off; its other half stands in the copy only."""
    with log.open("ab") as file:
        file.write(b"3 half")
    reader = Reader(log, LIMIT, None, at_end=False)
    assert len(read_all(reader)) == 2
    with log.open("ab") as file:
        file.write(b" and half\n4 unread\n")
    shutil.copyfile(log, log.with_name("events.jsonl.1"))
    log.write_bytes(b"5 after\n")
    assert read_all(reader) == [b"3 half and half", b"4 unread", b"5 after"]
    assert not reader.gap
    reader.close()


def test_a_line_too_long_goes_on_in_the_copy_too(log: Path) -> None:
    """Its rest is not taken for a line of its own."""
    with log.open("ab") as file:
        file.write(b"x" * (LIMIT + 1))
    reader = Reader(log, LIMIT, None, at_end=False)
    assert len(read_all(reader)) == 2
    with log.open("ab") as file:
        file.write(b"the rest\n3 third\n")
    shutil.copyfile(log, log.with_name("events.jsonl.1"))
    log.write_bytes(b"4 after\n")
    assert read_all(reader) == [b"3 third", b"4 after"]
    reader.close()
