"""``adsbridge queue`` beside a running bridge and a stopped one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsbridge import letters
from adsbridge.config import read
from adsbridge.store import DeadLetter, Row, Store
from support.alerts import falco, marker
from support.bridge import Bridge, configuration, post, wait_until
from support.receiver import Answer, Receiver, Request


class Soc:
    """A bridge with a receiver that refuses alerts while told to, and is down while told to be."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        self.folder = folder
        self.receiver = receiver
        self.refusing = threading.Event()
        self.down = threading.Event()
        receiver.decide = self._decide
        self.bridge = Bridge(configuration(folder, {"soc": {"type": "webhook", "url": receiver.url}}), folder)

    def _decide(self, _: Request) -> Answer:
        if self.down.is_set():
            return Answer(500)
        return Answer(422 if self.refusing.is_set() else 204)

    def queue(self, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "adsbridge", "queue", *arguments, "-c", str(self.bridge.path)],
            input=answer, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def letters(self) -> list[DeadLetter]:
        with Store(self.folder / "spool.db").reading() as store:
            return store.dead_letters()

    def bury(self, *names: str) -> None:
        """Have the receiver refuse alerts."""
        self.refusing.set()
        before = len(self.letters())
        self.bridge.feed(*names)
        wait_until(lambda: len(self.letters()) == before + len(names), "dead letters")
        self.refusing.clear()

    def put(self, *kept: DeadLetter) -> None:
        """Put dead letters into the spool of a stopped bridge."""
        with Store(self.folder / "spool.db").reading() as store, store.transaction():
            for letter in kept:
                store.bury(letter)


@pytest.fixture
def soc(tmp_path: Path) -> Iterator[Soc]:
    with Receiver() as receiver:
        made = Soc(tmp_path, receiver)
        yield made
        made.bridge.__exit__()


def test_without_a_spool_it_says_so(soc: Soc) -> None:
    """Before the bridge has ever run there is nothing to show: exit status 1 and why."""
    for arguments in (["status"], ["dead-letters"], ["retry", "--all"], ["drop", "--all", "--yes"]):
        shown = soc.queue(*arguments)
        assert shown.returncode == 1
        assert shown.stderr == f"{soc.folder}/spool.db: there is no spool yet; it is made by `adsbridge run`\n"
    assert not (soc.folder / "spool.db").exists()


def test_status_tells_what_waits(soc: Soc) -> None:
    """Beside a running bridge and a stopped one: the same alerts waiting for the sink, and the dead letters."""
    with soc.bridge as running:
        soc.bury("bad")
        soc.down.set()
        soc.bridge.feed("one", "two")
        beside = soc.queue("status")
        assert running.stop() == 0
    stopped = soc.queue("status")
    for shown in (beside, stopped):
        assert shown.returncode == 0
        assert re.search(r"spool\.db: [1-9]\d* bytes", shown.stdout)
        assert re.search(r"soc +2 alert\(s\) waiting, the oldest for \d+ s\n", shown.stdout)
        assert re.search(r"dead letters +1\n", shown.stdout)


def test_status_marks_a_sink_that_is_gone(soc: Soc) -> None:
    """Alerts for a sink that the configuration no longer has are shown as such."""
    with soc.bridge:
        pass
    with Store(soc.folder / "spool.db").reading() as store, store.transaction():
        store.append(Row(("gone",), falco("one") + b"\n", 1, 1))
    assert re.search(r"gone +1 alert.*\(no such sink in the configuration\)", soc.queue("status").stdout)


def test_dead_letters_are_listed(soc: Soc) -> None:
    """Each with its id, time, stage, component and why; as JSON with the payload as it was."""
    with soc.bridge as running:
        post(running.source_url("http"), b'{"no": "alert"}')
        soc.bury("bad")
        listed = soc.queue("dead-letters").stdout.splitlines()
        assert re.fullmatch(r" +1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d parse http: wrong_shape: .+", listed[0])
        assert re.fullmatch(r" +2 \S+ delivery soc: refused: http://127\.0\.0\.1:\d+ answered 422 .+", listed[1])
        parse, delivery = map(json.loads, soc.queue("dead-letters", "--json").stdout.splitlines())
        assert (parse["payload"], parse["stage"]) == ('{"no": "alert"}', "parse")
        assert marker(json.loads(delivery["payload"])) == "bad"
        short = soc.queue("dead-letters", "--limit", "1")
        assert short.stdout.splitlines() == listed[:1]
        assert "and 1 newer" in short.stderr


def test_a_listing_cannot_steer_the_terminal(soc: Soc) -> None:
    """Control characters that a sender put into a record are shown as escapes."""
    with soc.bridge:
        pass
    soc.put(DeadLetter("parse", "http", "not_json", "found \x1b[2J\x9b\r\nforged", b"\x1b[2J\xff"))
    for arguments in (["dead-letters"], ["dead-letters", "--json"]):
        shown = soc.queue(*arguments).stdout
        assert len(shown.splitlines()) == 1
        assert shown.rstrip("\n").isprintable()


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_retried_dead_letters_arrive_with_the_same_id(soc: Soc, running: bool) -> None:
    """What a receiver refused, put back by id or all at once, is delivered under its first id."""
    with soc.bridge as bridge:
        soc.bury("first", "second", "third")
        if not running:
            bridge.stop()
        ids = {marker(json.loads(letter.payload)): letter.id for letter in soc.letters()}
        refused = {alert["id"] for request in soc.receiver.requests for alert in request.alerts}
        one = soc.queue("retry", str(ids["second"]))
        assert (one.returncode, one.stdout) == (0, "1 put back\n")
        assert len(soc.letters()) == 2
        assert soc.queue("retry", "--all").stdout == "2 put back\n"
        assert soc.letters() == []
    with soc.bridge:
        wait_until(lambda: len(soc.receiver.alerts) >= 3, "the three")
    assert Counter(marker(alert) for alert in soc.receiver.alerts) == Counter(["first", "second", "third"])
    assert {alert["id"] for alert in soc.receiver.alerts} == refused


def test_a_running_bridge_notices_what_was_put_back(soc: Soc) -> None:
    """A running bridge delivers what was put back without being told."""
    with soc.bridge:
        soc.bury("one")
        assert soc.queue("retry", "--all").returncode == 0
        wait_until(lambda: soc.receiver.alerts, "the alert")
        wait_until(lambda: soc.bridge.metric("spool_alerts", sink="soc") == 0, "an empty spool")


def test_what_cannot_go_back_stays_and_is_told(soc: Soc) -> None:
    """A letter that still cannot be understood, was cut, is damaged or has no sink any more stays: exit status 1."""
    with soc.bridge:
        pass
    good = falco("understood")
    soc.put(
        DeadLetter("parse", "http", "not_json", "x", b"{broken"),
        DeadLetter("parse", "file", "too_long", "x", b"{" + b"x" * 65535),
        DeadLetter("delivery", "gone", "refused", "x", b"{}"),
        DeadLetter("delivery", "soc", "damaged", "x", os.urandom(20)),
        DeadLetter("parse", "http", "not_json", "a former version did not know it", good),
    )
    shown = soc.queue("retry", "--all")
    assert shown.returncode == 1
    assert shown.stdout == "1 put back\n"
    stayed = shown.stderr.splitlines()
    assert [line.split(":")[0] for line in stayed] == [f"{number} stays" for number in (1, 2, 3, 4)]
    assert "only its first 65536 bytes were kept" in stayed[1]
    assert "no sink 'gone' any more" in stayed[2]
    assert "Traceback" not in shown.stderr
    assert [letter.id for letter in soc.letters()] == [1, 2, 3, 4]
    with soc.bridge:
        wait_until(lambda: soc.receiver.alerts, "the one that went back")
    assert marker(soc.receiver.alerts[0]) == "understood"


def test_a_letter_that_another_put_back_does_not_go_twice(soc: Soc) -> None:
    """Two people who retry the same letters at once deliver each alert once."""
    with soc.bridge as running:
        soc.bury("one")
        running.stop()
    config = read(soc.bridge.path)
    with Store(soc.folder / "spool.db").reading() as store:
        chosen = store.dead_letters()
        assert letters.retry(store, chosen, config) == (1, [])
        assert letters.retry(store, chosen, config) == (0, [])
    with soc.bridge:
        wait_until(lambda: soc.receiver.alerts, "the alert")
    assert len(soc.receiver.alerts) == 1


@pytest.mark.parametrize("command", ["retry", "drop"])
def test_letters_have_to_be_named(soc: Soc, command: str) -> None:
    """Neither ids nor --all: nothing happens, exit status 2."""
    with soc.bridge:
        pass
    soc.put(DeadLetter("parse", "http", "not_json", "x", b"{"))
    shown = soc.queue(command)
    assert shown.returncode == 2
    assert shown.stderr == "name dead letters by their ids, or say --all\n"
    assert len(soc.letters()) == 1


def test_dropping_letters_asks_first(soc: Soc) -> None:
    """Without --yes it asks; no leaves everything, yes drops just those named."""
    with soc.bridge:
        pass
    soc.put(*(DeadLetter("parse", "http", "not_json", str(number), b"{") for number in range(3)))
    refused = soc.queue("drop", "--all", answer="n\n")
    assert refused.returncode == 1
    assert "Drop 3 dead letter(s)?" in refused.stdout
    assert len(soc.letters()) == 3
    assert soc.queue("drop", "2", answer="y\n").returncode == 0
    assert [letter.id for letter in soc.letters()] == [1, 3]
    assert soc.queue("drop", "--all", "--yes").stdout == "2 dead letter(s) dropped\n"
    assert soc.letters() == []


def test_dropping_what_waits_for_a_sink(soc: Soc) -> None:
    """All that waits for a sink goes, told how much, also under a running bridge, which takes new alerts as before."""
    with soc.bridge as running:
        soc.down.set()
        soc.bridge.feed("one", "two", "three")
        dropped = soc.queue("drop", "--sink", "soc", "--yes")
        assert (dropped.returncode, dropped.stdout) == (0, "3 alert(s) dropped\n")
        assert running.metric("spool_alerts", sink="soc") == 0
        assert running.metric("spool_bytes") == 0
        soc.down.clear()
        soc.bridge.feed("four")
        wait_until(lambda: "four" in {marker(alert) for alert in soc.receiver.alerts}, "the next alert")
        wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")


def test_a_damaged_spool_is_told(soc: Soc) -> None:
    """On a damaged file every command ends with status 2 and one line, without a traceback."""
    (soc.folder / "spool.db").write_bytes(os.urandom(20_000))
    for arguments in (["status"], ["dead-letters"], ["retry", "--all"], ["drop", "--all", "--yes"]):
        shown = soc.queue(*arguments)
        assert shown.returncode == 2, arguments
        assert shown.stderr.startswith(f"adsbridge: {soc.folder}/spool.db: file is not a database")
        assert len(shown.stderr.splitlines()) == 1
