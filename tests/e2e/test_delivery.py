"""Delivery against a real receiver: what it makes of each answer, and of none; breaker and dead letters."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsbridge.sinks.webhook import retry_after
from support.alerts import marker, names
from support.bridge import RETRY, Bridge, configuration, wait_until
from support.receiver import Answer, Receiver, Request, Script


def bridge(folder: Path, url: str, **settings: Any) -> Bridge:
    return Bridge(configuration(folder, {"soc": {"type": "webhook", "url": url, **settings}}), folder)


def dead_letters(folder: Path) -> list[tuple[str, str, str]]:
    """(reason, detail, marker) of each dead letter."""
    with sqlite3.connect(folder / "spool.db") as database:
        found = database.execute("SELECT reason, detail, payload FROM dead_letters ORDER BY id").fetchall()
    database.close()
    return [(reason, detail, marker(json.loads(payload))) for reason, detail, payload in found]


def test_a_refused_alert_becomes_a_dead_letter_and_its_neighbours_arrive(tmp_path: Path) -> None:
    """Of a batch with two alerts that a receiver refuses, exactly these become dead letters; the rest arrive once."""
    bad = {"alert-13", "alert-14"}
    good = Counter({*names(40), *names(3, "later")} - bad)

    def decide(request: Request) -> Answer:
        refused = bad & {marker(alert) for alert in request.alerts}
        return Answer(int(request.path[-3:]) if refused else 204)

    with Receiver(decide) as receiver:
        sinks = {
            f"{mode}-{status}": {"type": "webhook", "url": f"{receiver.url}/{mode}/{status}", "mode": mode}
            for mode in ("batch", "single")
            for status in (400, 413, 415, 422)
        }
        with Bridge(configuration(tmp_path, sinks), tmp_path) as running:
            running.feed(*names(40))
            running.feed(*names(3, "later"))
            wait_until(lambda: running.metric("spool_bytes") == 0, "an empty spool")
            for sink in sinks:
                assert running.metric("dead_letters_total", component=sink, reason="refused") == 2
                assert running.metric("alerts_delivered_total", sink=sink) == 41
            assert running.problems() == {}
    for sink in sinks:
        mode, status = sink.split("-")
        accepted = [request for request in receiver.accepted if request.path == f"/alerts/{mode}/{status}"]
        assert Counter(marker(alert) for request in accepted for alert in request.alerts) == good
        letters = [letter for letter in dead_letters(tmp_path) if f"answered {status}" in letter[1]]
        assert Counter(letter[2] for letter in letters) == Counter([*bad, *bad])
        assert {letter[0] for letter in letters} == {"refused"}


def test_an_odd_reason_phrase_does_no_harm(tmp_path: Path) -> None:
    """A refusal whose reason phrase is no UTF-8 makes a dead letter all the same."""
    answers = Script(Answer(400, phrase="n\xf6 \xff"))
    with Receiver(answers) as receiver, bridge(tmp_path, receiver.url) as running:
        running.feed("one")
        wait_until(lambda: running.metric("dead_letters_total", component="soc", reason="refused") == 1, "a letter")
        wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")
    assert [letter[2] for letter in dead_letters(tmp_path)] == ["one"]


def test_everything_else_is_tried_again(tmp_path: Path) -> None:
    """Any other answer, or none, is no refusal: the alerts arrive later, with the webhook-id of the first attempt."""
    statuses = (301, 302, 307, 401, 403, 404, 408, 429, 500, 502, 503, 0)
    with Receiver() as elsewhere:
        scripts = {
            f"/alerts/{status}": Script(*[Answer(status, {"Location": elsewhere.url})] * 2) for status in statuses
        }
        with Receiver(lambda request: scripts[request.path](request)) as receiver:
            sinks = {f"s{status}": {"type": "webhook", "url": f"{receiver.url}/{status}"} for status in statuses}
            with Bridge(configuration(tmp_path, sinks), tmp_path) as running:
                running.feed(*names(5))
                wait_until(lambda: running.metric("spool_bytes") == 0, "an empty spool")
        assert elsewhere.requests == []
    for path in scripts:
        requests = [request for request in receiver.requests if request.path == path]
        assert len(requests) == 3
        assert len({request.headers["webhook-id"] for request in requests}) == 1
    assert receiver.delivered() == Counter(names(5) * len(statuses))
    assert dead_letters(tmp_path) == []


@pytest.mark.parametrize(
    "asked", [lambda: "1", lambda: formatdate(time.time() + 2, usegmt=True)], ids=["seconds", "date"]
)
def test_retry_after_is_respected(tmp_path: Path, asked: Callable[[], str]) -> None:
    """After 429 or 503 nothing is sent before the time that the receiver asked for, in seconds or as a date."""
    arrivals: list[float] = []

    def decide(_: Request) -> Answer:
        arrivals.append(time.time())
        return Answer(429, {"Retry-After": asked()}) if len(arrivals) == 1 else Answer()

    with Receiver(decide) as receiver, bridge(tmp_path, receiver.url) as running:
        running.feed("one")
        wait_until(lambda: receiver.alerts, "the alert")
    assert arrivals[1] - arrivals[0] >= 0.95


@given(st.text(max_size=40) | st.from_regex(r"-?\d{1,400}") | st.builds(formatdate, st.integers(0, 10**11)))
def test_any_retry_after_is_a_time_or_nothing(value: str) -> None:
    """Whatever a receiver sends as Retry-After gives seconds that are not negative, or none."""
    seconds = retry_after(value)
    assert seconds is None or seconds >= 0


def test_no_answer_in_time_is_tried_again(tmp_path: Path) -> None:
    """A receiver that does not answer within the timeout gets the same batch again, under the same webhook-id."""
    answers = Script(Answer(delay=3))
    retry = RETRY | {"timeout": "500ms"}
    with Receiver(answers) as receiver, bridge(tmp_path, receiver.url, retry=retry) as running:
        running.feed(*names(3))
        wait_until(lambda: running.metric("alerts_delivered_total", sink="soc") == 3, "delivery")
        assert running.metric("delivery_attempts_total", sink="soc", outcome="timeout") >= 1
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert set(receiver.delivered()) == set(names(3))


def test_a_receiver_that_comes_up_later_gets_everything(tmp_path: Path) -> None:
    """While nobody listens alerts wait; when the receiver comes up they arrive in order, each once."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with bridge(tmp_path, f"http://127.0.0.1:{port}/") as running:
        for name in names(10):
            running.feed(name)
        wait_until(lambda: "sink soc" in running.problems(), "the breaker to open")
        with Receiver(port=port) as receiver:
            wait_until(lambda: len(receiver.alerts) == 10, "10 alerts")
            wait_until(lambda: running.problems() == {}, "the breaker to close")
    assert [marker(alert) for alert in receiver.alerts] == names(10)


@pytest.mark.parametrize("recovery", [204, 400])
def test_the_breaker_opens_probes_with_one_alert_and_closes(tmp_path: Path, recovery: int) -> None:
    """After failures in a row the bridge is not ready; one alert probes; any proper answer to it closes the breaker."""
    status = [204]
    with Receiver(lambda _: Answer(status[0])) as receiver, bridge(tmp_path, receiver.url) as running:
        running.feed("proof")  # that it is the right destination
        wait_until(lambda: running.metric("alerts_delivered_total", sink="soc") == 1, "the first alert")
        assert running.problems() == {}
        receiver.requests.clear()
        status[0] = 500
        running.feed(*names(20))
        wait_until(lambda: running.metric("sink_breaker_open", sink="soc") == 1, "the breaker to open")
        assert "failures in a row" in running.problems()["sink soc"]
        wait_until(lambda: len(receiver.requests) > 5, "probes")
        sizes = [len(request.alerts) for request in list(receiver.requests)]
        assert set(sizes[:3]) == {20}
        assert set(sizes[3:]) == {1}
        status[0] = recovery
        wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")
        assert running.metric("sink_breaker_open", sink="soc") == 0
        assert running.problems() == {}
        settled = running.metric("alerts_delivered_total", sink="soc") + len(dead_letters(tmp_path))
    assert settled == 21


def test_alerts_that_nobody_takes_for_too_long_become_dead_letters(tmp_path: Path) -> None:
    """After give_up_after the batch becomes dead letters with the last failure, and later alerts get their turn."""
    down = threading.Event()
    down.set()
    retry = RETRY | {"give_up_after": "300ms", "breaker_failures": 100}
    with (
        Receiver(lambda _: Answer(500 if down.is_set() else 204)) as receiver,
        bridge(tmp_path, receiver.url, retry=retry) as running,
    ):
        running.feed(*names(3))
        wait_until(lambda: len(dead_letters(tmp_path)) == 3, "dead letters")
        down.clear()
        running.feed("later")
        wait_until(lambda: receiver.alerts, "the later alert")
    assert receiver.delivered() == Counter({"later": 1})
    assert {letter[0] for letter in dead_letters(tmp_path)} == {"gave_up"}


def test_a_batch_damaged_in_the_spool_does_not_block_its_sink(tmp_path: Path) -> None:
    """Bytes changed on the disk cost the batch that holds them, kept as a dead letter; those behind it arrive."""
    with Receiver(lambda _: Answer(500)) as receiver:
        url = receiver.url
        with bridge(tmp_path, url, retry=RETRY | {"max_wait": "30s", "first_wait": "30s"}) as running:
            running.feed("damaged")
            running.feed("whole")
        with sqlite3.connect(tmp_path / "spool.db") as database:
            database.execute("UPDATE batches SET payload = ? WHERE id = 1", (os.urandom(100),))
        database.close()
        receiver.decide = lambda _: Answer()
        with running:
            wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")
            assert running.metric("dead_letters_total", component="soc", reason="damaged") == 1
    assert receiver.delivered() == Counter({"whole": 1})


def test_a_destination_that_refuses_everything_is_the_wrong_one(tmp_path: Path) -> None:
    """A few alerts become dead letters; the rest waits until the destination takes one, instead of being given up."""
    status = [400]
    with (
        Receiver(lambda _: Answer(status[0])) as receiver,
        bridge(tmp_path, receiver.url, retry={**RETRY, "breaker_pause": "50ms"}) as running,
    ):
        running.feed(*names(40))
        wait_until(lambda: "is the address right?" in running.log, "the suspicion to be told")
        status[0] = 204
        wait_until(lambda: running.metric("spool_bytes") == 0, "an empty spool")
        assert {reason for reason, _, _ in dead_letters(tmp_path)} == {"refused"}
        buried = {name for _, _, name in dead_letters(tmp_path)}
        assert len(buried) == 5
        assert Counter(marker(alert) for alert in receiver.alerts) == Counter(names(40)) - Counter(buried)
