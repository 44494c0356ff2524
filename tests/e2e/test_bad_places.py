"""A disk that is full, cannot be written or damages what it holds: clear errors, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from support.alerts import falco, marker
from support.bridge import Bridge, configuration, post, wait_until
from support.places import fill, remount_read_only, tmpfs
from support.receiver import Answer, Receiver


def bridge(folder: Path, receiver: Receiver, spool: Path, **changes: Any) -> Bridge:
    sinks = {"soc": {"type": "webhook", "url": receiver.url}}
    return Bridge(configuration(folder, sinks, spool={"path": str(spool)}, **changes), folder)


def arrived(receiver: Receiver) -> set[str]:
    return {marker(alert) for alert in receiver.alerts}


def padded(name: str) -> bytes:
    """An alert with some kilobytes that do not compress."""
    return falco(name, tags=[os.urandom(2000).hex()])


def test_a_full_disk_under_the_spool_loses_nothing(tmp_path: Path) -> None:
    """Senders get 503 with advice, the file source waits, the process lives; with room again, everything arrives."""
    with tmpfs(tmp_path / "small", "4m") as small, Receiver() as receiver:
        with bridge(tmp_path, receiver, small / "spool.db") as running:
            url = running.source_url("http")
            assert post(url, padded("before"))[0] == 200
            ballast = fill(small)
            taken, refused = ["before"], list[str]()
            while len(refused) < 5:
                name = f"http-{len(taken) + len(refused)}"
                status, answer = post(url, padded(name))
                (taken if status == 200 else refused).append(name)
                assert status in {200, 503}
            assert "free space on this file system, or set spool.path to another" in json.loads(answer)["error"]
            (tmp_path / "events.jsonl").write_bytes(b"".join(padded(f"file-{number}") + b"\n" for number in range(200)))
            wait_until(lambda: "cannot take records; trying again" in running.log, "the file source to wait")
            assert "cannot be written" in running.problems().values()
            ballast.unlink()
            wait_until(lambda: post(url, padded("after"))[0] == 200, "room for more")
            expected = {*taken, "after", *(f"file-{number}" for number in range(200))}
            wait_until(lambda: arrived(receiver) >= expected, "everything")
            wait_until(lambda: running.problems() == {}, "readiness")
            wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")
            assert running.stop() == 0
        assert arrived(receiver) <= expected | set(refused)


def test_a_disk_that_the_spool_itself_fills_does_not_lock_up(tmp_path: Path) -> None:
    """When what waits has filled its file system, deliveries still empty the spool, and everything taken arrives."""
    down = threading.Event()
    down.set()
    with (
        tmpfs(tmp_path / "small", "2m") as small,
        Receiver(lambda _: Answer(500 if down.is_set() else 204)) as receiver,
        bridge(tmp_path, receiver, small / "spool.db") as running,
    ):
        url = running.source_url("http")
        taken: list[str] = []
        refused = 0
        while refused < 20:
            name = f"alert-{len(taken)}-{refused}"
            status, answer = post(url, padded(name))
            if status == 200:
                taken.append(name)
            else:
                refused += 1
        assert "free space" in json.loads(answer)["error"]
        down.clear()
        wait_until(lambda: arrived(receiver) >= set(taken), "everything taken")
        wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")
        wait_until(lambda: post(url, padded("after"))[0] == 200, "room for more")
        wait_until(lambda: "after" in arrived(receiver), "the alert after")
        wait_until(lambda: running.problems() == {}, "readiness")


def test_a_start_on_a_full_disk_is_told(tmp_path: Path) -> None:
    """Where no spool can be made for want of room, the bridge ends with status 2 and says why."""
    with tmpfs(tmp_path / "small", "1m") as small, Receiver() as receiver:
        fill(small)
        broken = bridge(tmp_path, receiver, small / "spool.db")
        assert broken.launch().wait(30) == 2
    last = broken.log.splitlines()[-1]
    assert last.startswith(f"adsbridge: {small}/spool.db: ")
    assert "Traceback" not in broken.log


@pytest.mark.parametrize("place", ["read-only", "below a file", "a folder"])
def test_an_unwritable_spool_is_told(tmp_path: Path, place: str) -> None:
    """A spool that cannot be written: exit status 2, and one line with the path and what to do."""
    with tmpfs(tmp_path / "small", "1m") as small, Receiver() as receiver:
        (small / "file").touch()
        (small / "folder").mkdir()
        remount_read_only(small)
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        spool = {
            "read-only": small / "spool.db",
            "below a file": tmp_path / "file" / "spool.db",
            "a folder": tmp_path / "folder",
        }[place]
        broken = bridge(tmp_path, receiver, spool)
        assert broken.launch().wait(30) == 2
    (line,) = broken.log.splitlines()
    assert line.startswith(f"adsbridge: {spool}: ")
    assert line.endswith("make the file and its folder writable for this user, or set spool.path to another place")


def test_a_damaged_spool_is_set_aside_at_the_start(tmp_path: Path) -> None:
    """The damaged file is kept, told and counted, and the file source reads its file again: nothing is lost of it."""
    spool = tmp_path / "spool.db"
    (tmp_path / "events.jsonl").write_bytes(b"".join(falco(f"file-{number}") + b"\n" for number in range(10)))
    with Receiver(lambda _: Answer(500)) as receiver:
        with bridge(tmp_path, receiver, spool, drain_timeout="100ms") as running:
            wait_until(lambda: running.metric("spool_alerts", sink="soc") == 10, "10 alerts")
        damaged = bytearray(spool.read_bytes())
        damaged[4096:8192] = os.urandom(4096)
        spool.write_bytes(damaged)
        receiver.decide = lambda _: Answer()
        with running:
            assert running.metric("alerts_dropped_total", component="spool", reason="damaged") == 1
            wait_until(lambda: len(arrived(receiver)) == 10, "the file's alerts")
    (aside,) = tmp_path.glob("spool.db.damaged-*Z")
    assert aside.read_bytes() == damaged
    (told,) = [line for line in running.log_lines if "set aside" in line["event"]]
    assert told["path"] == str(aside)


def test_damage_while_it_runs_does_not_end_it(tmp_path: Path) -> None:
    """When the spool's file is damaged under a running bridge, senders get 503, and a restart goes on."""
    spool = tmp_path / "spool.db"
    down = threading.Event()
    down.set()
    with Receiver(lambda _: Answer(500 if down.is_set() else 204)) as receiver:
        with bridge(tmp_path, receiver, spool) as running:
            url = running.source_url("http")
            for number in range(50):
                assert post(url, padded(f"lost-{number}"))[0] == 200
            with sqlite3.connect(spool) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.close()
            with spool.open("r+b") as file:
                file.seek(4096)
                file.write(os.urandom(100 * 4096))
            status, answer = post(url, falco("refused"))
            assert status == 503
            assert "a restart sets the damaged file aside" in json.loads(answer)["error"]
            assert "cannot be written" in running.problems().values()
            assert running.stop() == 0
        down.clear()
        with running:
            assert post(running.source_url("http"), falco("after"))[0] == 200
            wait_until(lambda: "after" in arrived(receiver), "the alert after")


def test_a_removed_spool_does_not_end_it(tmp_path: Path) -> None:
    """Somebody who removes the spool's folder under a running bridge does not stop what it delivers, nor its end."""
    folder = tmp_path / "state"
    with Receiver() as receiver, bridge(tmp_path, receiver, folder / "spool.db") as running:
        url = running.source_url("http")
        assert post(url, falco("before"))[0] == 200
        wait_until(lambda: "before" in arrived(receiver), "the alert before")
        shutil.rmtree(folder)
        assert post(url, falco("after"))[0] in {200, 503}
        assert running.stop() == 0
