"""From events to routed alerts: tag, enrich, suppress, route. The same for run, demo, replay and explain."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from prometheus_client import Counter as PromCounter
from pydantic import Field

from adsbridge import timestamps
from adsbridge.components import Settings
from adsbridge.enrich.base import Enricher
from adsbridge.events import Alert, Event, encode_lines
from adsbridge.metrics import Metrics
from adsbridge.routing import Decision, Router
from adsbridge.store import Row
from adsbridge.strategy import Strategies

_BATCH = 500  # recorded events
log = structlog.get_logger()


class SuppressionSettings(Settings):
    """What is held back on purpose."""

    initial_results: bool = Field(
        True,
        description="Hold back osquery's first full result set of a query: what was there already is not news",
    )


class Routed(NamedTuple):
    """An alert, and where it goes.

    Attributes:
        suppressed: why it is held back; it then goes nowhere.
    """

    alert: Alert
    decision: Decision
    suppressed: str | None


class Processing:
    """Everything between parsing and the spool.

    Args:
        budget: seconds that all enrichers together may take for a batch.
    """

    def __init__(
        self,
        strategies: Strategies,
        enrichers: Sequence[Enricher],
        suppression: SuppressionSettings,
        router: Router,
        *,
        budget: float = 0.25,
    ) -> None:
        self.strategies = strategies
        self.router = router
        self._enrichers = enrichers
        self._suppression = suppression
        self._budget = budget

    async def process(self, events: Sequence[Event], metrics: Metrics) -> list[Routed]:
        """Make the events' alerts and decide where they go."""
        alerts = [self.strategies.tag(event) for event in events]
        await self._enrich(alerts, metrics)
        return [self._route(alert) for alert in alerts]

    async def replay(self, events: Sequence[Event]) -> list[Routed]:
        """Process recorded events in batches, so that each has its time budget, and count nothing."""
        metrics = Metrics()
        starts = range(0, len(events), _BATCH)
        batches = [await self.process(events[start : start + _BATCH], metrics) for start in starts]
        return [routed for batch in batches for routed in batch]

    async def _enrich(self, alerts: Sequence[Alert], metrics: Metrics) -> None:
        """Let each enricher add what it can; what one cannot do in time, or at all, holds no alert back."""
        deadline = asyncio.get_running_loop().time() + self._budget
        for enricher in self._enrichers:
            outcome = "done"
            try:
                async with asyncio.timeout_at(deadline):
                    await enricher.enrich(alerts)
            except TimeoutError:
                outcome = "timeout"
            except Exception:
                outcome = "failed"
                log.exception("the enricher has a defect", enricher=enricher.type)
            metrics.enriched.labels(enricher.type, outcome).inc(len(alerts))
            if outcome != "done":
                for alert in alerts:
                    alert.enrichment = {**alert.enrichment, enricher.type: outcome}

    def _route(self, alert: Alert) -> Routed:
        held_back = "initial_results" if alert.action == "initial" and self._suppression.initial_results else None
        decision = Decision((), (), None) if held_back else self.router.decide(alert)
        return Routed(alert, decision, held_back)


def rows(routed: Sequence[Routed]) -> list[Row]:
    """What to keep in the spool: one row for each set of sinks."""
    by_sinks: dict[tuple[str, ...], list[Alert]] = {}
    for alert, decision, _ in routed:
        if decision.sinks:
            by_sinks.setdefault(decision.sinks, []).append(alert)
    return [
        Row(sinks, encode_lines(alerts), len(alerts), timestamps.to_ns(min(alert.time for alert in alerts)))
        for sinks, alerts in by_sinks.items()
    ]


def count(routed: Sequence[Routed], metrics: Metrics) -> None:
    """Count what became of alerts, once they are durable."""
    counts: Counter[tuple[PromCounter, str]] = Counter()
    for alert, decision, suppressed in routed:
        if suppressed:
            counts[metrics.suppressed, suppressed] += 1
            continue
        if alert.strategy:
            counts[metrics.tagged, alert.strategy.id] += 1
        else:
            counts[metrics.untagged, alert.sensor] += 1
        for route in decision.routes:
            counts[metrics.routed, route] += 1
        if decision.default:
            counts[metrics.defaulted, decision.default] += 1
            if not decision.sinks:
                metrics.dropped.labels("routing", decision.default).inc()
    for (counter, label), number in counts.items():
        counter.labels(label).inc(number)
