"""Falco's alerts by HTTP: what is taken is committed, what is not is told, and no client hurts another."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsbridge.parse import KEPT_BYTES
from adsbridge.sources.falco_http import FalcoHttp
from support.bridge import PATIENCE, wait_until
from support.http import Http, alert, until_closed
from support.ledger import Ledger
from support.samples import DATA, lines, records


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """One bridge for all tests that need no settings of their own."""
    with Http(tmp_path_factory.mktemp("http")) as bridge:
        yield bridge


@pytest.fixture
def bridge(running: Http) -> Http:
    """That bridge, showing only what comes from now on."""
    running.forget()
    return running


def test_one_alert_as_falco_posts_it(bridge: Http) -> None:
    """Each recorded body is answered with 200 when it is committed, and delivered with all that it says."""
    bodies = lines("falco/main/http_bodies.jsonl")
    connection = http.client.HTTPConnection("127.0.0.1", bridge.port, timeout=PATIENCE)
    for body in bodies:  # over one connection, as libcurl does it
        connection.request("POST", "/falco", body, {"Content-Type": "application/json"})
        answer = bridge.answer(connection)
        assert (answer.status, answer.json) == (200, {"accepted": 1})
    connection.close()
    bridge.delivers(*(one["rule"] for one in records("falco/main/http_bodies.jsonl")))
    assert [one["raw"] for one in bridge.delivered] == records("falco/main/http_bodies.jsonl")


def test_every_form_of_a_body(bridge: Http) -> None:
    """An array, JSON lines, text, pretty-printed JSON, with gzip or in chunks: each gives its alerts."""
    pretty = json.dumps({"rule": "pretty", "output_fields": {"a": [1, 2]}}, indent=2).encode()
    text = (DATA / "falco/textmode/http_bodies.txt").read_bytes()
    gzipped = {"Content-Encoding": "gzip"}
    assert bridge.post(b"[" + alert("in array 1") + b"," + alert("in array 2") + b"]").json == {"accepted": 2}
    assert bridge.post(b"[\n " + alert("in array 3") + b"\n]\n").json == {"accepted": 1}
    assert bridge.post(alert("line 1") + b"\n" + alert("line 2") + b"\r\n\r\n").json == {"accepted": 2}
    assert bridge.post(b"\r\n  " + alert("with space around") + b"\n\n").json == {"accepted": 1}
    assert bridge.post(pretty).json == {"accepted": 1}
    assert bridge.post(text).json == {"accepted": 5}
    assert bridge.post(gzip.compress(alert("gzip")), **gzipped).json == {"accepted": 1}
    assert bridge.post(iter([alert("chunked")[:9], alert("chunked")[9:]])).json == {"accepted": 1}
    assert bridge.post(iter([gzip.compress(alert("both"))]), **gzipped).json == {"accepted": 1}
    names = ["in array 1", "in array 2", "in array 3", "line 1", "line 2", "with space around", "pretty", "gzip"]
    bridge.delivers(*names, "chunked", "both", *["(Falco text output)"] * 5)
    assert bridge.dead_letters == []


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/ping", 200, b"pong\n"),
        ("GET", "/healthz", 200, b'{"status": "ok"}'),
        ("HEAD", "/ping", 200, b""),
        ("GET", "/", 404, None),
        ("GET", "/nothing/here", 404, None),
        ("PUT", "/", 405, None),
        ("DELETE", "/", 405, None),
        ("OPTIONS", "/", 405, None),
    ],
)
def test_what_is_no_post(bridge: Http, method: str, path: str, status: int, body: bytes | None) -> None:
    """Health checks are answered; anything else is told what to do instead."""
    answer = bridge.request(method, path)
    assert answer.status == status
    if body is not None:
        assert answer.body == body
    else:
        assert "POST" in answer.json["error"]
        assert (answer.headers or {}).get("allow") == ("POST, GET" if status == 405 else None)


def test_good_and_bad_records_in_one_body(bridge: Http) -> None:
    """The good ones are delivered, each bad one is a dead letter, and the answer tells of both."""
    answer = bridge.post(b"\n".join([alert("1"), b"bad", alert("2"), b'{"rule": 5}', alert("3")]))
    assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (200, 3, 2)
    assert [error.split(":")[0] for error in answer.json["errors"]] == ["not_falco", "wrong_shape"]
    answer = bridge.post(b"{bad first\n" + alert("4") + b"\n")
    assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (200, 1, 1)
    answer = bridge.post(b'[{"rule":5},' + alert("5") + b"]")
    assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (200, 1, 1)
    bridge.delivers("1", "2", "3", "4", "5")
    assert [letter.payload for letter in bridge.dead_letters] == [
        b"bad", b'{"rule": 5}', b"{bad first", b'{"rule":5}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b" \r\n ", "empty"),
        (b"hello", "not_falco"),
        (b"{", "not_json"),
        (b"[1,", "not_json"),
        (b"[" * 10_000, "too_deep"),
        (b'{"rule":"x","output_fields":{"a":' * 10_000, "too_deep"),
        (b"\0", "not_falco"),
        (b"\xff\xfe", "not_falco"),
        (b"{}", "wrong_shape"),
    ],
)
def test_a_body_without_any_alert(bridge: Http, body: bytes, reason: str) -> None:
    """It is answered with 400 and the reason, and kept as a dead letter."""
    answer = bridge.post(body)
    assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (400, 0, 1)
    assert answer.json["errors"][0].startswith(f"{reason}: ")
    letter = bridge.dead_letters[-1]
    assert (letter.reason, letter.component, letter.payload) == (reason, "falco", (body.strip() or body)[:KEPT_BYTES])


def test_an_empty_list_of_alerts_is_no_mistake(bridge: Http) -> None:
    """A client with nothing to say may say so."""
    assert (bridge.post(b"[]").status, bridge.post(b"[]").json) == (200, {"accepted": 0})


def test_only_who_has_the_token_may_send(tmp_path: Path) -> None:
    """Without the token, or with another, nothing is taken; health checks need none."""
    with Http(tmp_path, token="s3cret-ü") as bridge:
        right = "Bearer s3cret-ü".encode().decode("latin-1")
        wrong = [
            "",
            "Bearer",
            "Bearer ",
            "Bearer s3cret",
            "Bearer s3cret-\xff",
            "bearer s3cret",
            right + "x",
            "Basic eDp5",
        ]
        for given in wrong:
            answer = bridge.post(alert("no"), **({"Authorization": given} if given else {}))
            assert answer.status == 401
            assert "Authorization" in answer.json["error"]
        assert bridge.post(alert("yes"), Authorization=right).status == 200
        assert bridge.request("GET", "/ping").status == 200
        bridge.delivers("yes")


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much of a token is right cannot be learnt from how long the answer takes."""
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr("hmac.compare_digest", lambda *both: compared.append(both))

    async def test() -> None:
        source = FalcoHttp("f", FalcoHttp.Config.model_validate({"listen": "127.0.0.1:0", "token": "abc"}))
        await source.start(Ledger())
        reader, writer = await asyncio.open_connection(*source.address[7:-1].split(":"))
        writer.write(b"POST / HTTP/1.0\r\nAuthorization: Bearer abd\r\nContent-Length: 0\r\n\r\n")
        assert (await reader.read()).split(b"\r\n")[0].endswith(b"401 Unauthorized")
        writer.close()
        await writer.wait_closed()
        await source.stop()

    asyncio.run(test())
    assert compared == [(b"Bearer abd", b"Bearer abc")]


def test_a_body_that_is_not_what_its_headers_say(bridge: Http) -> None:
    """What claims to be gzip and is not gets 400, not an error of the server's."""
    answer = bridge.post(b"not gzip", **{"Content-Encoding": "gzip"})
    assert (answer.status, "gzip" in answer.json["error"]) == (400, True)
    assert bridge.post(gzip.compress(alert("cut off"))[:-20], **{"Content-Encoding": "gzip"}).status == 400
    assert bridge.raw(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")[9:12] == b"400"
    assert bridge.raw(b"\x16\x03\x01 that is TLS\r\n\r\n")[9:12] == b"400"


def test_a_client_that_asks_before_it_sends(bridge: Http) -> None:
    """Curl asks for 100 Continue before a large body, and is told at once to go on."""
    body = alert("asked for")
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with bridge.connect() as connection:
        connection.sendall(head % len(body))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert until_closed(connection).startswith(b"HTTP/1.1 200 OK")
    bridge.delivers("asked for")


def test_half_closed_connections(bridge: Http) -> None:
    """A client that ends its side early loses at most its answer: what it sent whole is delivered."""
    body = alert("whole")
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    for sent in (head + body, head + body[:5], head[:9], b""):
        with bridge.connect() as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            until_closed(connection)
    bridge.delivers("whole")
    assert bridge.request("GET", "/ping").status == 200
    assert bridge.dead_letters == []


def test_the_same_again_has_the_same_id(bridge: Http) -> None:
    """A client that sends a body again is recognised by its ids; equal records in one body are several alerts."""
    body = b"\n".join([alert("twin"), alert("twin"), alert("other")])
    for _ in range(2):
        assert bridge.post(body).json == {"accepted": 3}
    bridge.delivers(*["twin", "twin", "other"] * 2)
    ids = [one["id"] for one in bridge.delivered]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3


def test_the_answer_comes_after_the_commit(tmp_path: Path) -> None:
    """Killed right after its answer, the bridge has what it took."""
    with Http(tmp_path) as bridge:
        assert bridge.post(alert("taken")).status == 200
        bridge.bridge.kill()
        bridge.bridge.start()
        wait_until(lambda: bridge.delivered, "the alert")
        assert {one["detection"] for one in bridge.delivered} == {"taken"}


def test_a_text_alert_names_no_host_so_its_sender_is_it(bridge: Http) -> None:
    """From this machine it is this machine's name."""
    bridge.post(b"20:30:08.1: Warning text")
    bridge.post(alert("named", hostname="node7"))
    wait_until(lambda: len(bridge.delivered) == 2, "the alerts")
    assert [one["host"]["name"] for one in bridge.delivered] == [socket.gethostname(), "node7"]
