"""A webhook receiver on loopback: what a SOC's endpoint does, with the signature checked."""

from __future__ import annotations

import base64
import hashlib
import hmac

import msgspec
from aiohttp import web

from adsbridge.events import Alert
from adsbridge.listener import Listener, ListenerSettings, problem
from adsbridge.units import Address

_decoder = msgspec.json.Decoder(list[Alert])


class Receiver:
    """Takes signed alerts and keeps them.

    Args:
        key: the Standard Webhooks signing key, decoded.

    Attributes:
        alerts: what was received, by id: an alert that comes twice counts once.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._listener = Listener(ListenerSettings(listen=Address("127.0.0.1", 0), max_body="64MiB"), self._take)
        self.alerts: dict[str, Alert] = {}

    @property
    def url(self) -> str:
        """Where to send to."""
        return f"http://127.0.0.1:{self._listener.port}/alerts"

    async def start(self) -> None:
        """Listen on a free port."""
        await self._listener.start()

    async def stop(self) -> None:
        """Stop listening."""
        await self._listener.stop()

    async def _take(self, request: web.BaseRequest) -> web.Response:
        if request.method != "POST":
            return web.Response()
        body = await self._listener.body(request)
        if not self._is_signed(request, body):
            return problem(401, "the signature is wrong")
        for alert in _decoder.decode(body):
            self.alerts[alert.id] = alert
        return web.Response(status=204)

    def _is_signed(self, request: web.BaseRequest, body: bytes) -> bool:
        head = f"{request.headers.get('webhook-id')}.{request.headers.get('webhook-timestamp')}."
        expected = base64.b64encode(hmac.new(self._key, head.encode() + body, hashlib.sha256).digest())
        given = request.headers.get("webhook-signature", "").encode()
        return any(hmac.compare_digest(one, b"v1," + expected) for one in given.split())
