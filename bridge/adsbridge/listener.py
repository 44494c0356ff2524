"""An HTTP listener with limits: connections, body size, request time, idle time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web
from pydantic import Field, model_validator

from adsbridge import __version__
from adsbridge.components import Settings
from adsbridge.errors import StartError
from adsbridge.tls import ServerTls
from adsbridge.units import Address, Duration, ListenAddress, Size

_LINGER = 1.0  # seconds that a connection refused may go on before it is closed
log = structlog.get_logger()
_SERVER = f"adsbridge/{__version__}"
Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]
Refused = Callable[[int], None]


class ListenerSettings(Settings):
    """Settings that every HTTP listener has."""

    listen: ListenAddress = Field(description="HOST:PORT to listen on")
    tls: ServerTls | None = Field(None, description="Serve HTTPS; needed when other machines can reach the address")
    allow_plaintext: bool = Field(False, description="Allow HTTP where other machines can reach it")
    max_body: Size = Field(4 * 2**20, description="Largest request body")
    max_connections: int = Field(512, ge=1, description="Most connections at once; further ones get 503")
    request_timeout: Duration = Field(10.0, description="Longest time for a request to arrive, and to be answered")
    max_buffered: Size = Field(
        64 * 2**20, description="Most bytes of bodies held at once, over all connections; further ones get 503"
    )
    idle_timeout: Duration = Field(75.0, description="Close a connection that sends nothing for so long")

    @model_validator(mode="after")
    def _is_protected(self) -> ListenerSettings:
        if not self.listen.is_loopback and self.tls is None and not self.allow_plaintext:
            raise ValueError(f"listen: other machines can reach {self.listen}; set tls, or say allow_plaintext: true")
        return self


class BodyTooLarge(Exception):  # noqa: N818 - told to the client, not an error of ours
    """The request's body is larger than allowed."""


class Overloaded(Exception):  # noqa: N818 - told to the client, not an error of ours
    """All bodies together are larger than what may be held at once."""


class Listener:
    """Serves one handler on one address.

    Args:
        settings: address and limits.
        handler: answers each request.
        refused: told the status of each answer that is an error, also to a connection beyond the limit.
    """

    def __init__(self, settings: ListenerSettings, handler: Handler, refused: Refused = lambda _: None) -> None:
        self._settings = settings
        self._handler = handler
        self._refused = refused
        self._runner: web.ServerRunner | None = None
        self._held: dict[int, int] = {}  # request -> bytes of its body, until it is answered
        self._buffered = 0
        self.port = settings.listen.port

    async def start(self) -> None:
        """Listen.

        Raises:
            StartError: the address cannot be had, or a TLS file is wrong.
        """
        settings = self._settings
        server = _LimitedServer(
            self._guarded,
            settings,
            self._refused,
            access_log=None,
            keepalive_timeout=settings.idle_timeout,
            lingering_time=_LINGER,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=settings.request_timeout)
        await self._runner.setup()
        try:
            context = settings.tls.context() if settings.tls else None
            site = web.TCPSite(self._runner, settings.listen.host, settings.listen.port, ssl_context=context)
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise StartError(f"cannot listen on {settings.listen}: {error.strerror or error}") from error
        self.port = self._runner.addresses[0][1]

    @property
    def url(self) -> str:
        """Where it listens."""
        scheme = "https" if self._settings.tls else "http"
        return f"{scheme}://{Address(self._settings.listen.host, self.port)}"

    async def stop(self) -> None:
        """Take no more connections; return when the requests under way are answered."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def body(self, request: web.BaseRequest) -> bytes:
        """The request's body.

        Raises:
            BodyTooLarge: it is larger than ``max_body``.
            Overloaded: with it, the bodies of all requests under way are larger than ``max_buffered``.
            TimeoutError: it did not arrive within ``request_timeout``.
        """
        limit = self._settings.max_body
        if (request.content_length or 0) > limit:
            raise BodyTooLarge
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        async with asyncio.timeout(self._settings.request_timeout):
            chunks = bytearray()
            async for chunk in request.content.iter_any():
                chunks += chunk
                self._hold(request, len(chunk))
                if len(chunks) > limit:
                    raise BodyTooLarge
        return bytes(chunks)

    def _hold(self, request: web.BaseRequest, size: int) -> None:
        self._held[id(request)] = self._held.get(id(request), 0) + size
        self._buffered += size
        if self._buffered > self._settings.max_buffered:
            raise Overloaded

    async def _guarded(self, request: web.BaseRequest) -> web.Response:
        try:
            response = await self._handler(request)
        except BodyTooLarge:
            response = problem(413, f"the body is larger than {self._settings.max_body} bytes (max_body)")
        except Overloaded:
            response = problem(503, "too much is under way (max_buffered); send it again", **{"Retry-After": "1"})
        except TimeoutError:
            response = problem(408, f"the request took longer than {self._settings.request_timeout:g} s")
        except web.RequestPayloadError as error:
            why = str(error).rpartition("\n")[2].strip()
            response = problem(400, f"the body is not what the request's headers say: {why}")
        except ConnectionError:
            response = problem(400, "the connection ended in the middle of the request")
        except Exception:
            log.exception("answering a request has a defect", path=request.path)
            response = problem(500, "the bridge has a defect; its log tells more")
        finally:
            self._buffered -= self._held.pop(id(request), 0)
        response.headers["Server"] = _SERVER
        if response.status >= 400:
            self._refused(response.status)
        if response.status in {408, 413, 503}:
            response.force_close()
        return response


def problem(status: int, detail: str, **headers: str) -> web.Response:
    """An error answer as JSON, for the person who reads the sender's log."""
    return web.json_response({"error": detail}, status=status, headers=headers)


class _LimitedServer(web.Server):
    """Refuses connections beyond the limit, and gives up those whose client takes no answers."""

    def __init__(self, handler: Any, settings: ListenerSettings, refused: Refused, **options: Any) -> None:
        super().__init__(handler, **options)
        self._settings = settings
        self._tell = refused
        self._refused: set[web.RequestHandler] = set()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        connection = transport.get_extra_info("socket")
        patience = int(self._settings.request_timeout * 1000)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
        if len(self.connections) - len(self._refused) > self._settings.max_connections:
            self._refuse(handler, transport)

    def _refuse(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._refused.add(handler)
        self._tell(503)
        # Later: until this call returns, the event loop of some Pythons (3.11.2) starts to read all the same.
        asyncio.get_running_loop().call_soon(transport.pause_reading)
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n"
            + f"Server: {_SERVER}\r\n\r\n".encode()
        )
        # Closed at once, what the client has sent unread would reset the connection before it reads the answer.
        asyncio.get_running_loop().call_later(_LINGER, transport.close)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._refused.discard(handler)
