"""A spool that cannot be used as it is: damaged, of a newer version, taken, or where nothing can be written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adsbridge.errors import SpoolError
from adsbridge.metrics import Metrics
from adsbridge.store import Store
from support.places import remount_read_only, tmpfs
from support.spools import commit, kept, noise, opened, run, waiting


def _random(data: bytearray) -> bytes:
    return os.urandom(len(data))


def _truncated(data: bytearray) -> bytes:
    return bytes(data[: len(data) // 2 + 100])


def _headless(data: bytearray) -> bytes:
    return b"\0" * 100 + bytes(data[100:])


def _garbage_page(data: bytearray) -> bytes:
    """The root page of the table ``pending`` is garbage."""
    with sqlite3.connect(":memory:") as database:
        database.deserialize(bytes(data[:18]) + b"\1\1" + bytes(data[20:]))  # as if it had no WAL
        root = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'pending'").fetchone()[0]
    database.close()
    data[(root - 1) * 4096 : root * 4096] = os.urandom(4096)
    return bytes(data)


def _no_database(_: bytearray) -> bytes:
    return b"hello, world\n" * 1000


@pytest.mark.parametrize("damage", [_random, _truncated, _headless, _garbage_page, _no_database])
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: Callable[[bytearray], bytes]) -> None:
    """A bridge whose spool is damaged keeps the file for a person, counts that, and goes on with a new one."""
    path, metrics = tmp_path / "spool.db", Metrics()

    async def make() -> None:
        async with opened(path) as spool:
            for number in range(50):
                await spool.commit(commit(noise(), b"%d" % number))

    async def use() -> None:
        async with opened(path, metrics) as spool:
            await spool.commit(commit(b"new"))
            assert await waiting(spool) == [b"new"]

    run(make)
    damaged = damage(bytearray(path.read_bytes()))
    path.write_bytes(damaged)
    run(use)
    (aside,) = tmp_path.glob("spool.db.damaged-*Z")
    assert aside.read_bytes() == damaged
    assert metrics.total(metrics.dropped) == {("spool", "damaged"): 1}


def test_damaged_twice_keeps_both(tmp_path: Path) -> None:
    """A second damaged file does not take the place of the first."""
    path = tmp_path / "spool.db"

    async def test() -> None:
        for _ in range(2):
            path.write_bytes(b"no database, this" * 100)
            async with opened(path):
                pass

    run(test)
    assert len(list(tmp_path.glob("spool.db.damaged-*Z"))) == 2


def test_an_empty_file_is_a_new_spool(tmp_path: Path) -> None:
    """A file without a byte (cut off before its first write) is no damage."""
    path = tmp_path / "spool.db"
    path.touch()

    async def test() -> None:
        async with opened(path) as spool:
            await spool.commit(commit(b"a"))

    run(test)
    assert kept(path) == [b"a"]
    assert list(tmp_path.glob("*damaged*")) == []


def test_damage_while_it_runs_is_an_error_and_no_more(tmp_path: Path) -> None:
    """A file damaged under a running spool makes errors with advice; the next start sets it aside."""
    path = tmp_path / "spool.db"

    async def test() -> None:
        async with opened(path) as spool:
            for _ in range(50):
                await spool.commit(commit(noise()))
            with sqlite3.connect(path) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.close()
            path.write_bytes(path.read_bytes()[:4096] + os.urandom(100 * 4096))
            with pytest.raises(SpoolError, match="a restart sets the damaged file aside"):
                await spool.commit(commit(b"lost"))
            with pytest.raises(SpoolError, match="cannot read the queue of soc"):
                await spool.waiting("soc", 0, 10)
            assert not spool.healthy
        async with opened(path) as spool:
            await spool.commit(commit(b"new"))

    run(test)
    assert kept(path) == [b"new"]


def test_a_newer_schema_is_refused_and_kept(tmp_path: Path) -> None:
    """A spool of a newer version is not set aside as damaged: nothing may be lost by a downgrade."""
    path = tmp_path / "spool.db"
    Store(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()

    async def test() -> None:
        for _ in range(2):  # the refusal lets go of the lock
            with pytest.raises(SpoolError, match="made by a newer adsbridge"):
                async with opened(path):
                    pass

    run(test)
    assert list(tmp_path.glob("*damaged*")) == []


def test_two_bridges_cannot_share_a_spool(tmp_path: Path) -> None:
    """The second is refused with advice; when the first has ended, even by SIGKILL, the next may start."""
    path = tmp_path / "spool.db"
    program = (
        "import asyncio, sys, pathlib\n"
        "from adsbridge.spool import Spool, SpoolSettings\n"
        "from adsbridge.metrics import Metrics\n"
        "async def main():\n"
        "    Spool.open(SpoolSettings(path=pathlib.Path(sys.argv[1])), Metrics())\n"
        "    print('open', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"open\n"

        async def second() -> None:
            with pytest.raises(SpoolError, match=r"another adsbridge works on it; give each its own spool\.path"):
                async with opened(path):
                    pass

        run(second)
        first.kill()

    async def third() -> None:
        async with opened(path) as spool:
            await spool.commit(commit(b"a"))

    run(third)


def test_a_read_only_place_is_told_with_advice(tmp_path: Path) -> None:
    """A spool where nothing can be written does not open, and the error says what to do."""

    async def test(path: Path) -> None:
        with pytest.raises(SpoolError, match="Read-only file system; make the file and its folder writable"):
            async with opened(path):
                pass

    with tmpfs(tmp_path / "small", "1m") as folder:
        Store(folder / "spool.db").close()
        remount_read_only(folder)
        run(lambda: test(folder / "spool.db"))
        run(lambda: test(folder / "below" / "spool.db"))
