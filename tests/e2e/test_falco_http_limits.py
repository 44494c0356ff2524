"""No client takes more than its share of the bridge: sizes, connections and times are limited."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import signal
import socket
import time
from pathlib import Path

from support.alerts import falco
from support.bridge import PATIENCE, Bridge, configuration, post, wait_until
from support.http import Http, alert, peak_memory, until_closed


def test_a_body_larger_than_allowed(tmp_path: Path) -> None:
    """With a length, in chunks without one, and as a small body that unpacks to a large one: 413 for each."""
    limit = 64 * 1024
    with Http(tmp_path, max_body="64KiB") as bridge:
        fits = alert("fits").ljust(limit)
        assert bridge.post(fits).status == 200
        assert bridge.post(gzip.compress(fits), **{"Content-Encoding": "gzip"}).status == 200
        for headers, body in (
            ({}, fits + b" "),
            ({"Transfer-Encoding": "chunked"}, chunked(fits, b" ")),
            ({"Content-Encoding": "gzip"}, gzip.compress(b" " * 50_000_000)),
        ):
            answer = bridge.post(body, **headers)
            assert answer.status == 413
            assert "max_body" in answer.json["error"]
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n"
        assert bridge.raw(head).startswith(b"HTTP/1.1 413 ")  # told before it comes
        assert peak_memory(bridge.bridge) < 150 * 2**20
        bridge.delivers("fits", "fits")


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def test_a_connection_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    """It gets 503 with Retry-After, however many come at once; those within the limit are served on."""
    with Http(tmp_path, max_connections=3) as bridge:
        within = [http.client.HTTPConnection("127.0.0.1", bridge.port, timeout=PATIENCE) for _ in range(3)]
        for connection in within:
            connection.request("GET", "/ping")
            assert bridge.answer(connection).status == 200
        beyond = [bridge.connect() for _ in range(20)]
        body = alert("refused")
        for one in beyond:
            one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        for one in beyond:
            answer = until_closed(one)
            one.close()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in answer
        for number, connection in enumerate(within):
            connection.request("POST", "/", alert(f"within {number}"))
            assert bridge.answer(connection).status == 200
            connection.close()
        wait_until(lambda: bridge.request("GET", "/ping").status == 200, "a free place")
        bridge.delivers("within 0", "within 1", "within 2")


def test_many_connections_at_once_do_not_pass_the_limit(tmp_path: Path) -> None:
    """Connections that come in the same moment are counted one by one."""
    with Http(tmp_path, max_connections=5) as bridge:
        assert bridge.bridge.process is not None
        bridge.bridge.signal(signal.SIGSTOP)
        connections = [bridge.connect() for _ in range(40)]
        for one in connections:
            one.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        bridge.bridge.signal(signal.SIGCONT)
        answers = [one.recv(1000)[9:12] for one in connections]
        for one in connections:
            one.close()
        assert (answers.count(b"200"), answers.count(b"503")) == (5, 35)


def test_slow_clients_do_not_stay(tmp_path: Path) -> None:
    """A body that stops coming gets 408; half a head, no request at all, or answers never read: closed."""
    with Http(tmp_path, request_timeout="500ms", idle_timeout="1s") as bridge:
        slow = {
            "body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            "chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
            "head": b"POST / HTTP/1.1\r\nHost: x\r\nContent-",
            "second head": b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nPOST / HT",
            "nothing": b"",
        }
        connections = {name: bridge.connect() for name in slow}
        for name, sent in slow.items():
            connections[name].sendall(sent)
        assert bridge.post(alert("meanwhile")).status == 200
        answers = {name: until_closed(connection) for name, connection in connections.items()}
        for connection in connections.values():
            connection.close()
        assert answers["body"].startswith(b"HTTP/1.1 408 ")
        assert answers["chunk"].startswith(b"HTTP/1.1 408 ")
        assert b"took longer than 0.5 s" in answers["body"]
        assert answers["head"] == answers["nothing"] == b""
        assert answers["second head"].endswith(b"pong\n")
        bridge.delivers("meanwhile")


def test_a_head_that_trickles_in_does_not_stay(tmp_path: Path) -> None:
    """A byte now and then does not keep a connection open for ever."""
    with Http(tmp_path, idle_timeout="500ms") as bridge, bridge.connect() as connection:
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                connection.sendall(b"P")
                time.sleep(0.05)  # the attacker's pace
        assert time.monotonic() < deadline


def test_a_client_that_reads_no_answers_is_given_up(tmp_path: Path) -> None:
    """Requests without end whose answers nobody takes block the connection, and then it is closed."""
    with Http(tmp_path, request_timeout="500ms", idle_timeout="500ms") as bridge, bridge.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(ConnectionError):  # a timeout would say that it was left open
            while True:
                connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)


def test_a_full_spool_is_told_to_the_sender(tmp_path: Path) -> None:
    """With when_full: block, 503 and Retry-After say that nothing was taken; health checks go on."""
    with Http(tmp_path, spool={"max_size": "1B", "when_full": "block"}) as bridge:
        assert bridge.bridge.process is not None
        (tmp_path / "alerts.jsonl").unlink()
        (tmp_path / "alerts.jsonl").mkdir()  # nothing can be delivered
        bridge.bridge.signal(signal.SIGUSR1)
        assert bridge.post(alert("first")).status == 200
        answer = bridge.post(alert("second"))
        assert (answer.status, (answer.headers or {})["retry-after"]) == (503, "1")
        assert "spool.max_size" in answer.json["error"]
        assert bridge.request("GET", "/ping").status == 200
        (tmp_path / "alerts.jsonl").rmdir()
        wait_until(lambda: bridge.post(alert("second")).status == 200, "room")
        bridge.delivers("first", "second")


def test_what_is_refused_is_counted_and_told(tmp_path: Path) -> None:
    """Falco sends nothing again, so each refusal is counted by status, and the first of a kind is logged."""
    with Bridge(configuration(tmp_path, {"out": {"type": "file", "path": str(tmp_path / "out")}}), tmp_path) as running:
        url = running.source_url("http")
        many = b"[" + b",".join([b'{"rule":"x"}'] * 5001) + b"]"
        assert post(url, many)[0] == 413
        assert post(url, many)[0] == 413
        assert post(url, b"")[0] == 400
        assert running.metric("requests_refused_total", source="http", status="413") == 2
        assert running.metric("requests_refused_total", source="http", status="400") == 1
        assert running.log.count("a request was refused") == 2
        assert post(url, falco("good"))[0] == 200
