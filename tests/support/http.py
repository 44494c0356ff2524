"""A bridge that takes alerts by HTTP, and a client that may do anything to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adsbridge.store import DeadLetter, Store
from support.bridge import PATIENCE, Bridge, wait_until
from support.samples import encoded


def alert(name: object, **more: Any) -> bytes:
    return encoded({"rule": str(name), **more})


@dataclass
class Answer:
    """What came back: ``status`` 0 when the connection was closed without an answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """A bridge with one falco_http source and a file to deliver to."""

    def __init__(self, folder: Path, spool: dict[str, Any] | None = None, **source: Any) -> None:
        self.folder = folder
        self.bridge = Bridge(
            json.dumps(
                {
                    "sources": {"falco": {"type": "falco_http", "listen": "127.0.0.1:0", **source}},
                    "sinks": {"out": {"type": "file", "path": str(folder / "alerts.jsonl")}},
                    "spool": {"path": str(folder / "spool.db"), **(spool or {})},
                    "admin": {"listen": "127.0.0.1:0"},
                }
            ),
            folder,
        )

        self._forgotten = (0, 0)

    def forget(self) -> None:
        """Leave out of ``delivered`` and ``dead_letters`` what there was up to now."""
        self._forgotten = (0, 0)
        self._forgotten = (len(self.delivered), len(self.dead_letters))

    def __enter__(self) -> Http:
        self.bridge.start()
        self.port = int(self.bridge.source_url("falco").rstrip("/").rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        if self.bridge.process is not None and self.bridge.process.poll() is None:
            assert self.bridge.stop() == 0, self.bridge.log
        assert "Traceback" not in self.bridge.log

    def request(self, method: str, path: str = "/", body: Any = None, tls: Any = None, **headers: str) -> Answer:
        connect = (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=tls)
            if tls
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        )
        with contextlib.closing(connect) as connection:
            connection.request(method, path, body, headers)
            return self.answer(connection)

    @staticmethod
    def answer(connection: http.client.HTTPConnection) -> Answer:
        with connection.getresponse() as response:
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, response.read(), headers)

    def post(self, body: Any, **headers: str) -> Answer:
        return self.request("POST", "/", body, **headers)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def raw(self, sent: bytes) -> bytes:
        """Everything that comes back until the connection is closed."""
        with self.connect() as connection:
            connection.sendall(sent)
            return until_closed(connection)

    @property
    def delivered(self) -> list[dict[str, Any]]:
        path = self.folder / "alerts.jsonl"
        found = path.read_bytes().splitlines() if path.is_file() else []
        return [json.loads(one) for one in found[self._forgotten[0] :]]

    def delivers(self, *names: str) -> None:
        """Wait until so many alerts are delivered; they must be these, in any order."""
        wait_until(lambda: len(self.delivered) >= len(names), f"{len(names)} alerts")
        assert sorted(one["detection"] for one in self.delivered) == sorted(names)

    @property
    def dead_letters(self) -> list[DeadLetter]:
        store = Store(self.folder / "spool.db")
        try:
            return store.dead_letters()[self._forgotten[1] :]
        finally:
            store.close()


def until_closed(connection: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            found += chunk
    return found


def peak_memory(bridge: Bridge) -> int:
    assert bridge.process is not None
    status = Path(f"/proc/{bridge.process.pid}/status").read_text()
    return int(next(one.split()[1] for one in status.splitlines() if one.startswith("VmHWM"))) * 1024
