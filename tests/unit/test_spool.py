"""The durable queue: what is committed stays, whatever else fails; what cannot be kept is told and counted."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from adsbridge.errors import SpoolError, SpoolFull
from adsbridge.metrics import Metrics
from adsbridge.spool import Commit
from adsbridge.store import DeadLetter, Row, Store
from support.places import fill, tmpfs
from support.spools import commit, kept, noise, opened, run, waiting


def test_concurrent_commits_share_transactions_and_are_all_durable(tmp_path: Path) -> None:
    """Of a thousand commits at once, each is in the file when it returns, in far fewer transactions."""
    path, metrics = tmp_path / "spool.db", Metrics()

    async def test() -> None:
        async with opened(path, metrics) as spool:

            async def one(number: int) -> None:
                await spool.commit(commit(b"%d" % number))
                if number % 100 == 0:
                    assert b"%d" % number in kept(path)

            await asyncio.gather(*(one(number) for number in range(1000)))

    run(test)
    assert sorted(map(int, kept(path))) == list(range(1000))
    assert metrics.total(metrics.commits)[()] < 200


def test_alerts_checkpoint_and_dead_letters_become_durable_together(tmp_path: Path) -> None:
    """What one commit holds is all there after reopening."""
    path = tmp_path / "spool.db"
    letter = DeadLetter("parse", "falco", "not_json", "broken", b"{")

    async def test() -> None:
        async with opened(path) as spool:
            await spool.commit(Commit([Row(("soc",), b"a\n", 1, 1)], {"falco": "7"}, [letter]))
        async with opened(path) as spool:
            assert await spool.checkpoint("falco") == "7"
            assert await waiting(spool) == [b"a"]

    run(test)
    with Store(path).reading() as store:
        assert store.dead_letters()[0].payload == b"{"


def test_one_bad_commit_does_not_fail_those_that_share_its_transaction(tmp_path: Path) -> None:
    """Only the commit at fault raises; its neighbours in the group are durable."""
    path = tmp_path / "spool.db"
    bad = Commit(rows=[Row(("soc",), b"bad\n", 1, 2**70)])  # larger than SQLite's integers

    async def test() -> None:
        async with opened(path) as spool:
            works = [bad if number == 17 else commit(b"%d" % number) for number in range(40)]
            results = await asyncio.gather(*(spool.commit(work) for work in works), return_exceptions=True)
            assert [number for number, result in enumerate(results) if result is not None] == [17]
            assert isinstance(results[17], SpoolError)
            assert spool.depths == {"soc": 39}

    run(test)
    assert sorted(map(int, kept(path))) == [number for number in range(40) if number != 17]


def test_a_full_disk_fails_what_does_not_fit_and_nothing_else(tmp_path: Path) -> None:
    """On a full disk large commits fail with advice; what is durable stays, and room makes all well again."""

    async def test(folder: Path) -> None:
        path = folder / "spool.db"
        async with opened(path) as spool:
            await spool.commit(commit(b"first"))
            ballast = fill(folder)
            large = [spool.commit(commit(noise(200_000))) for _ in range(4)]
            results = await asyncio.gather(*large, return_exceptions=True)
            assert all(isinstance(result, SpoolError) for result in results)
            assert "free space on this file system" in str(results[0])
            assert not spool.healthy
            await spool.observe()  # reading proves nothing about writing
            assert not spool.healthy
            assert await waiting(spool) == [b"first"]
            assert spool.depths == {"soc": 1}
            ballast.unlink()
            await spool.commit(commit(b"second"))
            assert spool.healthy
            assert await waiting(spool) == [b"first", b"second"]

    with tmpfs(tmp_path / "small", "2m") as folder:
        run(lambda: test(folder))


def test_full_and_told_to_block(tmp_path: Path) -> None:
    """A full spool refuses alerts with advice, takes checkpoints still, and takes alerts again once there is room."""

    async def test() -> None:
        async with opened(tmp_path / "spool.db", max_size="10KiB") as spool:
            while not spool.full:
                await spool.commit(commit(noise()))
            with pytest.raises(SpoolFull, match=r"of 10240 bytes \(spool.max_size\); a sink is behind"):
                await spool.commit(commit(b"more"))
            await spool.commit(Commit(checkpoints={"falco": "1"}))
            batches = await spool.waiting("soc", 0, 2)
            await spool.done("soc", [batch.id for batch in batches])
            assert not spool.full
            await spool.commit(commit(b"more"))
            assert (await waiting(spool))[-1] == b"more"

    run(test)


def test_full_and_told_to_drop_the_oldest(tmp_path: Path) -> None:
    """A full spool takes what is new, drops the oldest, and counts what it dropped for each sink."""
    metrics = Metrics()
    alerts = [noise() for _ in range(20)]

    async def test() -> None:
        async with opened(tmp_path / "spool.db", metrics, max_size="10KiB", when_full="drop_oldest") as spool:
            for alert in alerts:
                await spool.commit(commit(alert, sinks=("soc", "archive")))
            left = await waiting(spool)
            assert left == alerts[-len(left) :]
            assert 0 < len(left) < 10
            dropped = metrics.total(metrics.dropped)
            assert dropped == dict.fromkeys([("soc", "spool_full"), ("archive", "spool_full")], 20 - len(left))
            assert spool.depths == {"soc": len(left), "archive": len(left)}

    run(test)


def test_a_sink_may_finish_what_was_dropped_meanwhile(tmp_path: Path) -> None:
    """A batch dropped while it is on its way is not counted twice when its sink is done with it."""

    async def test() -> None:
        async with opened(tmp_path / "spool.db", max_age="1ms") as spool:
            await spool.commit(commit(b"a"))
            (batch,) = await spool.waiting("soc", 0, 10)
            while spool.depths:
                await spool.expire()
            await spool.done("soc", [batch.id])
            assert spool.depths == {}
            await spool.commit(commit(b"b"))
            assert spool.depths == {"soc": 1}

    run(test)


def test_old_alerts_are_dropped_and_counted(tmp_path: Path) -> None:
    """What waited longer than max_age goes, counted as expired; younger alerts stay."""
    metrics = Metrics()
    path = tmp_path / "spool.db"

    async def test() -> None:
        async with opened(path, metrics, max_age="1h") as spool:
            await spool.commit(commit(b"old", b"older"))
            with sqlite3.connect(path) as database:
                database.execute("UPDATE batches SET created = created - ?", (3601 * 10**9,))
            database.close()
            await spool.commit(commit(b"young"))
            await spool.expire()
            assert await waiting(spool) == [b"young"]
            assert metrics.total(metrics.dropped) == {("soc", "expired"): 2}

    run(test)


def test_too_many_dead_letters_are_trimmed_and_counted(tmp_path: Path) -> None:
    """Beyond max_dead_letters the oldest go, counted, whether parsing or delivery made them."""
    metrics = Metrics()
    letter = DeadLetter("parse", "falco", "not_json", "broken", b"{")

    async def test() -> None:
        async with opened(tmp_path / "spool.db", metrics, max_dead_letters=3) as spool:
            await spool.commit(Commit(dead_letters=[letter] * 5))
            await spool.commit(commit(b"a"))
            await spool.done("soc", [1], [letter] * 2)
            assert metrics.total(metrics.dropped) == {("spool", "dead_letters_full"): 4}

    run(test)


def test_the_gauges_follow_what_waits(tmp_path: Path) -> None:
    """Alerts, bytes and age are shown by sink, and return to 0 when a sink has everything."""
    metrics = Metrics()

    def gauge(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"adsbridge_{name}", labels)

    async def test() -> None:
        async with opened(tmp_path / "spool.db", metrics) as spool:
            await spool.commit(commit(b"a", b"b"))
            await spool.observe()
            assert gauge("spool_alerts", sink="soc") == 2
            assert (gauge("spool_oldest_seconds", sink="soc") or 0) > 0
            assert (gauge("spool_bytes") or 0) > 0
            await spool.done("soc", [1])
            await spool.observe()
            assert gauge("spool_alerts", sink="soc") == 0
            assert gauge("spool_oldest_seconds", sink="soc") == 0
            assert gauge("spool_bytes") == 0

    run(test)


def test_room_made_by_another_process_is_noticed(tmp_path: Path) -> None:
    """What `adsbridge queue drop --sink` frees is free for the running bridge at its next look."""
    path = tmp_path / "spool.db"

    async def test() -> None:
        async with opened(path, max_size="4KiB") as spool:
            while not spool.full:
                await spool.commit(commit(noise()))
            with Store(path).reading() as other, other.transaction():
                other.drop_sink("soc")
            await spool.observe()
            assert not spool.full
            assert spool.depths == {}

    run(test)


def test_new_alerts_wake_who_waits(tmp_path: Path) -> None:
    """A sink that waits for more learns of a commit at once, not at its next look."""

    async def test() -> None:
        async with opened(tmp_path / "spool.db") as spool:
            seen = spool.sequence
            more = asyncio.create_task(spool.wait_for_more(seen, 50))
            await asyncio.sleep(0)
            await spool.commit(commit(b"a"))
            await more
            await spool.wait_for_more(seen, 50)

    run(test)


def test_closing_finishes_what_was_asked(tmp_path: Path) -> None:
    """Commits under way when the spool is closed are durable."""
    path = tmp_path / "spool.db"

    async def test() -> None:
        async with opened(path) as spool:
            tasks = [asyncio.create_task(spool.commit(commit(b"%d" % number))) for number in range(300)]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    run(test)
    assert len(kept(path)) == 300


def test_the_age_of_what_waits_counts_from_its_acceptance(tmp_path: Path) -> None:
    """An alert with an old sensor time is not expired on arrival."""

    async def test() -> None:
        async with opened(tmp_path / "spool.db", max_age="1h") as spool:
            await spool.commit(Commit(rows=[Row(("soc",), b"a\n", 1, time.time_ns() - 10**15)]))
            await spool.expire()
            assert spool.depths == {"soc": 1}

    run(test)
