"""The admin listener: /metrics for Prometheus, /healthz (the process runs), /readyz (alerts can flow)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from adsbridge.listener import Listener, ListenerSettings, problem
from adsbridge.metrics import Metrics

Readiness = Callable[[], dict[str, str]]
"""What stands in the way of alerts, by component; empty when nothing does."""


class Admin:
    """Serves metrics and health.

    Args:
        metrics: what /metrics shows.
        readiness: asked by /readyz.
        refresh: brings gauges up to date before /metrics is shown.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        metrics: Metrics,
        readiness: Readiness,
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        self.listener = Listener(settings, self._answer)
        self._metrics = metrics
        self._readiness = readiness
        self._refresh = refresh

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.method not in {"GET", "HEAD"}:
            return problem(405, "only GET", Allow="GET")
        if request.path == "/metrics":
            await self._refresh()
            return web.Response(body=self._metrics.text(), content_type="text/plain", charset="utf-8")
        if request.path == "/healthz":
            return web.json_response({"status": "ok"})
        if request.path == "/readyz":
            problems = self._readiness()
            status = {"status": "not ready", "problems": problems} if problems else {"status": "ready"}
            return web.json_response(status, status=503 if problems else 200)
        return problem(404, "there are /metrics, /healthz and /readyz")
