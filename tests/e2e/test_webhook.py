"""The webhook sink against a real receiver: what it sends, what it makes of each answer, what it keeps secret."""

from __future__ import annotations

import base64
import gzip
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
from standardwebhooks import Webhook, WebhookVerificationError

from adsbridge import config
from adsbridge.errors import ConfigError
from adsbridge.sinks.webhook import retry_after
from support.alerts import falco, marker
from support.bridge import RETRY, Bridge, configuration, post, wait_until
from support.certificates import Authority
from support.receiver import Answer, Receiver, Request


def bridge(folder: Path, url: str, **settings: Any) -> Bridge:
    return Bridge(configuration(folder, {"soc": {"type": "webhook", "url": url, **settings}}), folder)


def feed(running: Bridge, *names: str) -> None:
    """Alerts in one request, so that they wait as one batch."""
    status, answer = post(running.source_url("http"), b"[" + b",".join(falco(name) for name in names) + b"]")
    assert status == 200, answer


def delivered(receiver: Receiver) -> Counter[str]:
    return Counter(marker(alert) for alert in receiver.alerts)


def dead_letters(folder: Path) -> list[tuple[str, str, str]]:
    """(reason, detail, marker) of each dead letter."""
    with sqlite3.connect(folder / "spool.db") as database:
        found = database.execute("SELECT reason, detail, payload FROM dead_letters ORDER BY id").fetchall()
    database.close()
    return [(reason, detail, marker(json.loads(payload))) for reason, detail, payload in found]


def names(count: int, prefix: str = "alert") -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


class Script:
    """Answers one after the other, then 204 for good."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)

    def __call__(self, _: Request) -> Answer:
        return self._answers.pop(0) if self._answers else Answer()


def test_a_batch_is_a_json_array_within_the_limits(tmp_path: Path) -> None:
    """Batches are JSON arrays of at most max_alerts alerts, in order, with their headers as Standard Webhooks says."""
    with Receiver() as receiver, bridge(tmp_path, receiver.url, batch={"max_alerts": 7, "max_wait": "10ms"}) as running:
        feed(running, *names(30))
        wait_until(lambda: len(receiver.alerts) == 30, "30 alerts")
    assert [marker(alert) for alert in receiver.alerts] == names(30)
    for request in receiver.requests:
        assert isinstance(json.loads(request.body), list)
        assert 1 <= len(request.alerts) <= 7
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("adsbridge/")
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 3600
        assert "webhook-signature" not in request.headers
    ids = [request.headers["webhook-id"] for request in receiver.requests]
    assert len(set(ids)) == len(ids)


def test_a_batch_keeps_within_max_size(tmp_path: Path) -> None:
    """No request holds more JSON than max_size, unless a single alert is larger."""
    batch = {"max_size": "6KiB", "max_wait": "10ms"}
    with Receiver() as receiver, bridge(tmp_path, receiver.url, batch=batch) as running:
        feed(running, *names(20), "large-" + "x" * 8000)
        wait_until(lambda: len(receiver.alerts) == 21, "21 alerts")
    assert [len(request.body) < 7000 for request in receiver.requests].count(False) == 1
    assert any(len(request.alerts) > 1 for request in receiver.requests)


def test_single_mode_sends_one_object_each(tmp_path: Path) -> None:
    """In mode single each request is one alert, and its webhook-id is the alert's id."""
    with Receiver() as receiver, bridge(tmp_path, receiver.url, mode="single") as running:
        feed(running, *names(20))
        wait_until(lambda: len(receiver.alerts) == 20, "20 alerts")
    for request in receiver.requests:
        assert request.headers["webhook-id"] == json.loads(request.body)["id"]
    assert delivered(receiver) == Counter(names(20))


def test_single_mode_gives_each_alert_its_time(tmp_path: Path) -> None:
    """A slow receiver that answers each alert in time gets each once, however long the whole batch takes."""
    retry = RETRY | {"timeout": "1s"}
    with (
        Receiver(lambda _: Answer(delay=0.1)) as receiver,
        bridge(tmp_path, receiver.url, mode="single", retry=retry) as running,
    ):
        feed(running, *names(20))
        wait_until(lambda: len(receiver.alerts) == 20, "20 alerts")
        wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")
    assert delivered(receiver) == Counter(names(20))


@pytest.mark.parametrize("compressed", [False, True])
def test_the_signature_verifies_with_either_key(tmp_path: Path, compressed: bool) -> None:
    """With two keys, a receiver that knows either the old or the new one accepts; another key is refused."""
    old, new, other = (f"whsec_{base64.b64encode(os.urandom(32)).decode()}" for _ in range(3))
    with (
        Receiver() as receiver,
        bridge(tmp_path, receiver.url, secrets=[new, old.removeprefix("whsec_")], gzip=compressed) as running,
    ):
        feed(running, *names(3))
        wait_until(lambda: len(receiver.alerts) == 3, "3 alerts")
    for request in receiver.requests:
        assert request.headers.get("content-encoding") == ("gzip" if compressed else None)
        for key in (old, new):
            assert Webhook(key).verify(request.body, request.headers) == json.loads(request.body)
        with pytest.raises(WebhookVerificationError):
            Webhook(other).verify(request.body, request.headers)


def test_secrets_stay_secret(tmp_path: Path) -> None:
    """No header value, signing key or token in the URL's path shows in the log, in /metrics or in a repr."""
    key = base64.b64encode(os.urandom(32)).decode()
    secrets = {"header": "Bearer hush-header", "path": "hush-path", "query": "hush-query", "key": key}

    def garbage() -> tuple[socket.socket, int]:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"this is no HTTP hush-answer\x1b[2J\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        return listener, listener.getsockname()[1]

    listener, port = garbage()
    answers = Script(Answer(500), Answer(401), Answer(400), Answer(302, {"Location": "/elsewhere"}), Answer(0))
    with listener, Receiver(answers) as receiver:
        base = receiver.url.removesuffix("/alerts")
        sinks = {
            name: {
                "type": "webhook",
                "url": f"{address}/{secrets['path']}?token={secrets['query']}",
                "headers": {"Authorization": secrets["header"]},
                "secrets": [f"whsec_{key}"],
            }
            for name, address in {
                "soc": base,
                "garbage": f"http://127.0.0.1:{port}",
                "nobody": "http://127.0.0.1:1",
            }.items()
        }
        text = configuration(tmp_path, sinks, drain_timeout="100ms", log={"level": "debug"})
        with Bridge(text, tmp_path) as running:
            feed(running, *names(5))
            wait_until(lambda: set(delivered(receiver)) == set(names(5)), "5 alerts")
            assert receiver.requests[0].headers["authorization"] == secrets["header"]
            assert receiver.requests[0].path == f"/{secrets['path']}?token={secrets['query']}"
            for name in ("garbage", "nobody"):
                wait_until(
                    lambda name=name: running.metric("delivery_attempts_total", sink=name, outcome="failed") > 1,
                    "failures",
                )
            shown = running.metrics()
    shown += running.log + repr(config.parse(text)) + str(dead_letters(tmp_path))
    assert "cannot deliver" in shown
    assert {name for name, secret in secrets.items() if secret in shown} == set()
    assert "\x1b" not in running.log


def test_headers_that_http_cannot_carry_are_mistakes(tmp_path: Path) -> None:
    """A line end in a header's value (a secret file with CRLF) is told by the check, not found out at night."""
    for headers in ({"Authorization": "secret\r"}, {"X-A": "a\nb"}, {"No good": "x"}, {"Host": "x"}):
        text = configuration(tmp_path, {"soc": {"type": "webhook", "url": "http://127.0.0.1:1/", "headers": headers}})
        with pytest.raises(ConfigError, match="headers") as caught:
            config.parse(text)
        assert "secret" not in str(caught.value)


def test_gzip_compresses(tmp_path: Path) -> None:
    """With gzip the body on the wire is smaller, and unpacks to the same JSON."""
    raw: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection = listener.accept()[0]
        with connection, connection.makefile("rb") as stream:
            size = 0
            while (line := stream.readline().strip()) != b"":
                name, _, value = line.lower().partition(b":")
                size = int(value) if name == b"content-length" else size
            raw.append(stream.read(size))
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        with bridge(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}/", gzip=True) as running:
            feed(running, *names(20))
            wait_until(lambda: raw, "a request")
            wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")
        thread.join()
    body = gzip.decompress(raw[0])
    assert len(raw[0]) < len(body) / 2
    assert [marker(alert) for alert in json.loads(body)] == names(20)


def test_tls_with_an_authority_of_ones_own_and_client_certificates(tmp_path: Path) -> None:
    """A receiver that asks for a client certificate gets it; without it, or without trust, alerts wait."""
    ours, foreign = Authority(tmp_path), Authority(tmp_path, "foreign")
    certificate, key = ours.issue("client")
    pair = {"certificate": str(certificate), "key": str(key)}
    with Receiver(tls=ours.server(clients=True)) as receiver:
        sinks = {
            name: {"type": "webhook", "url": receiver.url + name, "tls": tls}
            for name, tls in {
                "right": {"ca": str(ours.path), **pair},
                "anonymous": {"ca": str(ours.path)},
                "distrustful": {"ca": str(foreign.path), **pair},
                "system": pair,
            }.items()
        }
        with Bridge(configuration(tmp_path, sinks, drain_timeout="1s"), tmp_path) as running:
            feed(running, *names(5))
            wait_until(lambda: len(receiver.alerts) == 5, "5 alerts")
            for name in ("anonymous", "distrustful", "system"):
                wait_until(lambda name=name: f"sink {name}" in running.problems(), f"{name}'s breaker to open")
                assert running.metric("spool_alerts", sink=name) == 5
    assert {request.path for request in receiver.requests} == {"/alertsright"}


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
            feed(running, *names(40))
            feed(running, *names(3, "later"))
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
        feed(running, "one")
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
                feed(running, *names(5))
                wait_until(lambda: running.metric("spool_bytes") == 0, "an empty spool")
        assert elsewhere.requests == []
    for path in scripts:
        requests = [request for request in receiver.requests if request.path == path]
        assert len(requests) == 3
        assert len({request.headers["webhook-id"] for request in requests}) == 1
    assert delivered(receiver) == Counter(names(5) * len(statuses))
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
        feed(running, "one")
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
        feed(running, *names(3))
        wait_until(lambda: running.metric("alerts_delivered_total", sink="soc") == 3, "delivery")
        assert running.metric("delivery_attempts_total", sink="soc", outcome="timeout") >= 1
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert set(delivered(receiver)) == set(names(3))


def test_a_receiver_that_comes_up_later_gets_everything(tmp_path: Path) -> None:
    """While nobody listens alerts wait; when the receiver comes up they arrive in order, each once."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with bridge(tmp_path, f"http://127.0.0.1:{port}/") as running:
        for name in names(10):
            feed(running, name)
        wait_until(lambda: "sink soc" in running.problems(), "the breaker to open")
        with Receiver(port=port) as receiver:
            wait_until(lambda: len(receiver.alerts) == 10, "10 alerts")
            wait_until(lambda: running.problems() == {}, "the breaker to close")
    assert [marker(alert) for alert in receiver.alerts] == names(10)


@pytest.mark.parametrize("recovery", [204, 400])
def test_the_breaker_opens_probes_with_one_alert_and_closes(tmp_path: Path, recovery: int) -> None:
    """After failures in a row the bridge is not ready; one alert probes; any proper answer to it closes the breaker."""
    down = threading.Event()
    down.set()

    def decide(_: Request) -> Answer:
        return Answer(500 if down.is_set() else recovery)

    with Receiver(decide) as receiver, bridge(tmp_path, receiver.url) as running:
        assert running.problems() == {}
        feed(running, *names(20))
        wait_until(lambda: running.metric("sink_breaker_open", sink="soc") == 1, "the breaker to open")
        assert "failures in a row" in running.problems()["sink soc"]
        wait_until(lambda: len(receiver.requests) > 5, "probes")
        sizes = [len(request.alerts) for request in list(receiver.requests)]
        assert set(sizes[:3]) == {20}
        assert set(sizes[3:]) == {1}
        down.clear()
        wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")
        assert running.metric("sink_breaker_open", sink="soc") == 0
        assert running.problems() == {}
        settled = running.metric("alerts_delivered_total", sink="soc") + len(dead_letters(tmp_path))
    assert settled == 20


def test_alerts_that_nobody_takes_for_too_long_become_dead_letters(tmp_path: Path) -> None:
    """After give_up_after the batch becomes dead letters with the last failure, and later alerts get their turn."""
    down = threading.Event()
    down.set()
    retry = RETRY | {"give_up_after": "300ms", "breaker_failures": 100}
    with (
        Receiver(lambda _: Answer(500 if down.is_set() else 204)) as receiver,
        bridge(tmp_path, receiver.url, retry=retry) as running,
    ):
        feed(running, *names(3))
        wait_until(lambda: len(dead_letters(tmp_path)) == 3, "dead letters")
        down.clear()
        feed(running, "later")
        wait_until(lambda: receiver.alerts, "the later alert")
    assert delivered(receiver) == Counter({"later": 1})
    assert {letter[0] for letter in dead_letters(tmp_path)} == {"gave_up"}


def test_a_batch_damaged_in_the_spool_does_not_block_its_sink(tmp_path: Path) -> None:
    """Bytes changed on the disk cost the batch that holds them, kept as a dead letter; those behind it arrive."""
    with Receiver(lambda _: Answer(500)) as receiver:
        url = receiver.url
        with bridge(tmp_path, url, retry=RETRY | {"max_wait": "30s", "first_wait": "30s"}) as running:
            feed(running, "damaged")
            feed(running, "whole")
        with sqlite3.connect(tmp_path / "spool.db") as database:
            database.execute("UPDATE batches SET payload = ? WHERE id = 1", (os.urandom(100),))
        database.close()
        receiver.decide = lambda _: Answer()
        with running:
            wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")
            assert running.metric("dead_letters_total", component="soc", reason="damaged") == 1
    assert delivered(receiver) == Counter({"whole": 1})


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1/", "http://soc.example.com/", "http://[2001:db8::1]/", "http://10.0.0.1:80/"]
)
def test_plaintext_to_another_machine_is_refused(tmp_path: Path, url: str) -> None:
    """http:// to another machine is a mistake in the configuration, unless it is asked for."""
    sink = {"type": "webhook", "url": url}
    with pytest.raises(ConfigError, match="sends alerts unencrypted to another machine"):
        config.parse(configuration(tmp_path, {"soc": sink}))
    config.parse(configuration(tmp_path, {"soc": {**sink, "allow_plaintext": True}}))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://localhost/", "http://[::1]/x", "https://soc.example.com/"]
)
def test_loopback_and_https_need_no_permission(tmp_path: Path, url: str) -> None:
    """Alerts that stay on this machine or go encrypted are fine."""
    config.parse(configuration(tmp_path, {"soc": {"type": "webhook", "url": url}}))
