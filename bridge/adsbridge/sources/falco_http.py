"""Falco's alerts by HTTP, from its http_output."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket

from aiohttp import web
from pydantic import Field, SecretStr

from adsbridge.errors import ParseError, SpoolError
from adsbridge.listener import Listener, ListenerSettings, problem
from adsbridge.parse import Parsed, falco
from adsbridge.parse.bodies import falco_records
from adsbridge.sources.base import Intake, Source
from adsbridge.units import Address, ListenAddress

MOST_RECORDS = 5000
"""Alerts in one request: more would hold up everything else while they are read."""


class FalcoHttpSettings(ListenerSettings):
    """Settings of the falco_http source."""

    listen: ListenAddress = Field(Address("127.0.0.1", 2801), description="HOST:PORT to listen on")
    token: SecretStr | None = Field(
        None, min_length=1, description="Senders must give it as 'Authorization: Bearer TOKEN'"
    )


class FalcoHttp(Source):
    """Takes alerts by POST: one, a JSON array, or JSON lines; answers when they are durable.

    Falco does not send again what was not taken, so its alerts are lost while nobody listens: prefer falco_file
    on the same host. In falco.yaml: ``http_output: {enabled: true, url: "http://127.0.0.1:2801/"}``.
    """

    type = "falco_http"
    sensors = frozenset({"falco"})
    Config = FalcoHttpSettings
    example = "listen: 127.0.0.1:2801"
    settings: FalcoHttpSettings

    def __init__(self, name: str, settings: FalcoHttpSettings) -> None:
        super().__init__(name, settings)
        self._listener = Listener(settings, self._answer, self._count_refused)
        self._host = socket.gethostname()
        self._intake: Intake | None = None

    @property
    def address(self) -> str:
        """The URL to send to; see ``Source.address``."""
        return f"{self._listener.url}/"

    async def start(self, intake: Intake) -> None:
        """Listen; see ``Source.start``."""
        self._intake = intake
        await self._listener.start()

    async def stop(self) -> None:
        """Stop listening; see ``Source.stop``."""
        await self._listener.stop()

    def _count_refused(self, status: int) -> None:
        if self._intake is not None:
            self._intake.refused(self.name, status)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.method in {"GET", "HEAD"}:
            return _health(request.path)
        if request.method != "POST":
            return problem(405, "send alerts by POST", Allow="POST, GET")
        if not self._may_send(request):
            return problem(401, "expected 'Authorization: Bearer TOKEN' with this source's token")
        return await self._take(await self._listener.body(request), request.remote)

    def _may_send(self, request: web.BaseRequest) -> bool:
        if self.settings.token is None:
            return True
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        return hmac.compare_digest(given, b"Bearer " + self.settings.token.get_secret_value().encode())

    async def _take(self, body: bytes, peer: str | None) -> web.Response:
        assert self._intake is not None, "start() comes first"  # noqa: S101
        parsed = _parse(body, self._sender(peer))
        if parsed is None:
            return problem(413, f"the body holds more than {MOST_RECORDS} alerts; send them in several requests")
        try:
            async with asyncio.timeout(self.settings.request_timeout):
                await (await self._intake.submit(self.name, parsed))
        except (SpoolError, TimeoutError) as error:
            return problem(503, str(error) or "busy; nothing was taken for sure, send it again", **{"Retry-After": "1"})
        if parsed.rejected:
            return _rejections(parsed)
        return web.Response(text=f'{{"accepted":{len(parsed.events)}}}', content_type="application/json")

    def _sender(self, peer: str | None) -> str | None:
        """The host to name for an alert that names none (Falco's text output)."""
        try:
            local = peer is None or ipaddress.ip_address(peer).is_loopback
        except ValueError:
            local = False
        return self._host if local else peer


def _parse(body: bytes, host: str | None) -> Parsed | None:
    """What a body holds; ``None`` if it is more than may be taken at once."""
    parsed = Parsed()
    try:
        records = falco_records(body)
    except ParseError as error:
        parsed.received = 1
        parsed.reject(error, body)
        return parsed
    if len(records) > MOST_RECORDS:
        return None
    seen: dict[bytes, int] = {}
    for record in records:
        repeated = seen[record] = seen.get(record, -1) + 1
        parsed.take(falco.parse, record, b"#%d" % repeated if repeated else b"", host)
    return parsed


def _rejections(parsed: Parsed) -> web.Response:
    details = [f"{rejected.reason}: {rejected.detail}" for rejected in parsed.rejected[:10]]
    answer = {"accepted": len(parsed.events), "rejected": len(parsed.rejected), "errors": details}
    return web.json_response(answer, status=200 if parsed.events else 400)


def _health(path: str) -> web.Response:
    if path == "/ping":
        return web.Response(text="pong\n")
    if path == "/healthz":
        return web.json_response({"status": "ok"})
    return problem(404, "send alerts by POST; /ping and /healthz answer to GET")
