"""The admin listener: /metrics for Prometheus, /healthz (the process runs), /readyz (alerts can flow)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from adsbridge.listener import Listener, ListenerSettings, problem
from adsbridge.metrics import Metrics

Readiness = Callable[[], tuple[bool, dict[str, str]]]
"""Whether alerts can be taken, and what stands in their way anywhere, by component."""


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
            ready, problems = self._readiness()
            answer = {"status": "ready" if ready else "not ready", "problems": problems}
            return web.json_response(answer, status=200 if ready else 503)
        return problem(404, "there are /metrics, /healthz and /readyz")
