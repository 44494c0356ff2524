"""What the benchmarks talk to, each in a process of its own so that its work is not measured.

``peers.py receiver`` prints its port, then answers every POST with 204. ``peers.py sender PORT COUNT`` posts alerts,
one each, over 32 keep-alive connections.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

CONNECTIONS = 32
RECORDED = Path(__file__).parents[1] / "data" / "falco"


def alerts(count: int) -> Iterator[bytes]:
    """Recorded alerts, each made unique by its time."""
    recorded = [
        line
        for folder in ("main", "containers-allengines", "k8s-labels-0431")
        for line in (RECORDED / folder / "file_output.jsonl").read_text().splitlines()
    ]
    halves = [line.rsplit('"time":"', 1)[0] for line in recorded]
    for number in range(count):
        second, nanosecond = divmod(number, 1_000_000_000)
        time = f"2026-11-21T20:{second:02d}:00.{nanosecond:09d}Z"
        yield f'{halves[number % len(halves)]}"time":"{time}"}}'.encode()


class Receiver(asyncio.Protocol):
    """Reads requests by their Content-Length and answers 204."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._buffer += data
            head, found, body = bytes(self._buffer).partition(b"\r\n\r\n")
            if not found:
                return
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            self._missing = int(length.split(b":")[1]) - len(body)
            self._buffer.clear()
        if self._missing <= 0:
            self._missing = 0
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


async def receive() -> None:
    """Serve until ended."""
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def send(port: int, count: int) -> None:
    """Post alerts over all connections."""
    source = alerts(count)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in source:
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answer = await reader.readuntil(b"}")
            assert answer.startswith(b"HTTP/1.1 200"), answer
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    print(json.dumps({"sent": count}), flush=True)


if __name__ == "__main__":
    asyncio.run(receive() if sys.argv[1] == "receiver" else send(int(sys.argv[2]), int(sys.argv[3])))
