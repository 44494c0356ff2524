"""Prometheus metrics: one object holds them all, so that no module keeps global state."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)


class Metrics:
    """All metrics of one bridge; names and labels are documented in docs/metrics.md, made from here."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.received = self._counter("events_received", "Records taken from a source", "source")
        self.refused = self._counter(
            "requests_refused", "Requests answered with an error, by status", "source", "status"
        )
        self.events = self._counter("events_parsed", "Events that the records held", "source")
        self.tagged = self._counter("alerts_tagged", "Alerts that a strategy claims", "strategy")
        self.untagged = self._counter("alerts_untagged", "Alerts that no strategy claims", "sensor")
        self.suppressed = self._counter("alerts_suppressed", "Alerts held back on purpose", "reason")
        self.enriched = self._counter("alerts_enriched", "Alerts that an enricher handled", "enricher", "result")
        self.routed = self._counter("alerts_routed", "Alerts that a route took", "route")
        self.defaulted = self._counter("alerts_defaulted", "Alerts that went by a default", "default")
        self.delivered = self._counter("alerts_delivered", "Alerts that a sink confirmed", "sink")
        self.retried = self._counter("alerts_retried", "Alerts sent again after a failure", "sink")
        self.attempts = self._counter("delivery_attempts", "Batches sent, by outcome", "sink", "outcome")
        self.dead_letters = self._counter("dead_letters", "Kept as dead letters", "component", "reason")
        self.dropped = self._counter("alerts_dropped", "Dropped for good", "component", "reason")
        self.commits = self._counter("spool_commits", "Transactions committed in the spool")
        self.failed_commits = self._counter("spool_failed_commits", "Transactions that failed in the spool")
        self.spool_alerts = self._gauge("spool_alerts", "Alerts waiting in the spool", "sink")
        self.spool_oldest = self._gauge("spool_oldest_seconds", "Age of the oldest waiting alert", "sink")
        self.spool_bytes = self._gauge("spool_bytes", "Bytes of waiting alerts, compressed")
        self.breaker = self._gauge("sink_breaker_open", "1 while the sink's circuit breaker is open", "sink")
        self.up = self._gauge("source_up", "1 while the source takes events", "source")
        self.latency = Histogram(
            "adsbridge_delivery_latency_seconds",
            "From the sensor's time of the oldest alert in a batch to its delivery",
            ["sink"],
            buckets=_LATENCY,
            registry=self.registry,
        )

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"adsbridge_{name}", help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"adsbridge_{name}", help_text, labels, registry=self.registry)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def total(self, counter: Counter) -> dict[tuple[str, ...], float]:
        """A counter's values by their labels."""
        return {
            tuple(sample.labels.values()): sample.value
            for metric in counter.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }
