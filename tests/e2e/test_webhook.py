"""The webhook sink against a real receiver: what it sends, and what it keeps secret."""

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
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from adsbridge import config
from adsbridge.errors import ConfigError
from support.alerts import marker, names
from support.bridge import RETRY, Bridge, configuration, wait_until
from support.certificates import Authority
from support.receiver import Answer, Receiver, Script


def bridge(folder: Path, url: str, **settings: Any) -> Bridge:
    return Bridge(configuration(folder, {"soc": {"type": "webhook", "url": url, **settings}}), folder)


def dead_letters(folder: Path) -> list[tuple[str, str, str]]:
    """(reason, detail, marker) of each dead letter."""
    with sqlite3.connect(folder / "spool.db") as database:
        found = database.execute("SELECT reason, detail, payload FROM dead_letters ORDER BY id").fetchall()
    database.close()
    return [(reason, detail, marker(json.loads(payload))) for reason, detail, payload in found]


def test_a_batch_is_a_json_array_within_the_limits(tmp_path: Path) -> None:
    """Batches are JSON arrays of at most max_alerts alerts, in order, with their headers as Standard Webhooks says."""
    with Receiver() as receiver, bridge(tmp_path, receiver.url, batch={"max_alerts": 7, "max_wait": "10ms"}) as running:
        running.feed(*names(30))
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
        running.feed(*names(20), "large-" + "x" * 8000)
        wait_until(lambda: len(receiver.alerts) == 21, "21 alerts")
    assert [len(request.body) < 7000 for request in receiver.requests].count(False) == 1
    assert any(len(request.alerts) > 1 for request in receiver.requests)


def test_single_mode_sends_one_object_each(tmp_path: Path) -> None:
    """In mode single each request is one alert, and its webhook-id is the alert's id."""
    with Receiver() as receiver, bridge(tmp_path, receiver.url, mode="single") as running:
        running.feed(*names(20))
        wait_until(lambda: len(receiver.alerts) == 20, "20 alerts")
    for request in receiver.requests:
        assert request.headers["webhook-id"] == json.loads(request.body)["id"]
    assert receiver.delivered() == Counter(names(20))


def test_single_mode_gives_each_alert_its_time(tmp_path: Path) -> None:
    """A slow receiver that answers each alert in time gets each once, however long the whole batch takes."""
    retry = RETRY | {"timeout": "1s"}
    with (
        Receiver(lambda _: Answer(delay=0.1)) as receiver,
        bridge(tmp_path, receiver.url, mode="single", retry=retry) as running,
    ):
        running.feed(*names(20))
        wait_until(lambda: len(receiver.alerts) == 20, "20 alerts")
        wait_until(lambda: running.metric("spool_alerts", sink="soc") == 0, "an empty spool")
    assert receiver.delivered() == Counter(names(20))


@pytest.mark.parametrize("compressed", [False, True])
def test_the_signature_verifies_with_either_key(tmp_path: Path, compressed: bool) -> None:
    """With two keys, a receiver that knows either the old or the new one accepts; another key is refused."""
    old, new, other = (f"whsec_{base64.b64encode(os.urandom(32)).decode()}" for _ in range(3))
    with (
        Receiver() as receiver,
        bridge(tmp_path, receiver.url, secrets=[new, old.removeprefix("whsec_")], gzip=compressed) as running,
    ):
        running.feed(*names(3))
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
            running.feed(*names(5))
            wait_until(lambda: set(receiver.delivered()) == set(names(5)), "5 alerts")
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
            running.feed(*names(20))
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
            running.feed(*names(5))
            wait_until(lambda: len(receiver.alerts) == 5, "5 alerts")
            for name in ("anonymous", "distrustful", "system"):
                wait_until(lambda name=name: f"sink {name}" in running.problems(), f"{name}'s breaker to open")
                assert running.metric("spool_alerts", sink=name) == 5
    assert {request.path for request in receiver.requests} == {"/alertsright"}


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
