"""An HTTP receiver on loopback that does what a test tells it, in a thread of its own."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.alerts import marker


@dataclass
class Request:
    """A request as it came; ``body`` is decompressed, ``time`` is of the monotonic clock."""

    headers: dict[str, str]
    body: bytes
    path: str = "/"
    time: float = field(default_factory=time.monotonic)

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """The alerts in the body."""
        decoded = json.loads(self.body)
        return decoded if isinstance(decoded, list) else [decoded]


@dataclass
class Answer:
    """What to answer: a status with headers, or nothing at all (``status`` 0: the connection is closed).

    Attributes:
        delay: seconds to wait before the answer.
        lost: the connection is closed instead of answering; what was accepted stays accepted.
    """

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    lost: bool = False
    phrase: str | None = None


class Script:
    """Answers one after the other, then 204 for good."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)

    def __call__(self, _: Request) -> Answer:
        return self._answers.pop(0) if self._answers else Answer()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A peer that hangs up or fails the TLS handshake is part of the game."""


class Receiver:
    """Keeps every request and answers as ``decide`` says; only 2xx answers count as accepted."""

    def __init__(
        self,
        decide: Callable[[Request], Answer] | None = None,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.decide = decide or (lambda _: Answer())
        self._scheme = "https" if tls else "http"
        self.requests: list[Request] = []
        self.accepted: list[Request] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._take(self)

            def do_HEAD(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = _Server(("127.0.0.1", port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}/alerts"

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """Every alert accepted, in order, repeated ones too."""
        with self._lock:
            return [alert for request in self.accepted for alert in request.alerts]

    def delivered(self, path: str | None = None) -> Counter[str]:
        """How often each marked alert was accepted, at one path or any."""
        with self._lock:
            accepted = [request for request in self.accepted if path in {None, request.path}]
        return Counter(marker(alert) for request in accepted for alert in request.alerts)

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if handler.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = Request({name.lower(): value for name, value in handler.headers.items()}, body, handler.path)
        answer = self.decide(request)
        with self._lock:
            self.requests.append(request)
            if 200 <= answer.status < 300:
                self.accepted.append(request)
        time.sleep(answer.delay)
        if answer.status == 0 or answer.lost:
            handler.close_connection = True
            return
        handler.send_response(answer.status, answer.phrase)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
