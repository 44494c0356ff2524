"""Delivery, once for all sinks: batching, retry with backoff, circuit breaking, dead letters.

A sink only raises ``Permanent`` or ``Retryable``. What is refused for good is cut in halves until the one bad
alert is found: it becomes a dead letter, and its neighbours are delivered.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import structlog
from prometheus_client import Gauge
from pydantic import Field

from adsbridge.components import Settings
from adsbridge.errors import Permanent, Retryable, SendError, SpoolError
from adsbridge.metrics import Metrics
from adsbridge.sinks.base import Batch, Sink
from adsbridge.spool import Spool
from adsbridge.store import DeadLetter, Waiting
from adsbridge.units import Duration, Size

_SUSPICIOUS = 5  # alerts refused by a destination that never took one: it is the wrong one, not they
_LOOK_AGAIN = 5.0  # seconds; how soon something is seen that `adsbridge queue retry` put into the spool
log = structlog.get_logger()


class BatchSettings(Settings):
    """How alerts are put together for one request."""

    max_alerts: int = Field(500, ge=1, le=10_000, description="Most alerts in a batch")
    max_size: Size = Field(4 * 2**20, description="Most bytes of JSON in a batch")
    max_wait: Duration = Field(0.1, description="How long a batch may wait for more alerts")


class RetrySettings(Settings):
    """What happens when a destination does not take a batch."""

    first_wait: Duration = Field(1.0, description="Wait before the second attempt; doubled each time, with jitter")
    max_wait: Duration = Field(60.0, description="Longest wait between attempts")
    give_up_after: Duration = Field(7 * 86400.0, description="Then the batch becomes dead letters")
    breaker_failures: int = Field(5, ge=1, description="Failures in a row that open the circuit breaker")
    breaker_pause: Duration = Field(30.0, description="How long an open breaker waits before one alert probes")
    timeout: Duration = Field(30.0, description="Longest time for one attempt")


class DeliverySettings(Settings):
    """Settings that every sink has beside its own."""

    batch: BatchSettings = BatchSettings()
    retry: RetrySettings = RetrySettings()


class Breaker:
    """Stops trying a destination that fails again and again.

    Closed, everything passes. After so many failures in a row it opens: nothing is tried for a pause. Then it
    is half open: one alert probes. Its success closes the breaker, its failure opens it again.

    Args:
        gauge: shows whether it is open.
    """

    def __init__(self, settings: RetrySettings, gauge: Gauge) -> None:
        self._settings = settings
        self._gauge = gauge
        self.succeeded()

    @property
    def open(self) -> bool:
        """Whether the destination counts as down."""
        return self.failures >= self._settings.breaker_failures

    def succeeded(self) -> None:
        """A request went through."""
        self.failures = 0
        self._gauge.set(0)

    def failed(self, retry_after: float | None) -> float:
        """A request failed; the seconds to wait before the next."""
        self.failures += 1
        self._gauge.set(self.open)
        longest = self._settings.max_wait
        wait = min(self._settings.first_wait * 2.0 ** min(self.failures - 1, 30), longest)
        if self.open:
            wait = max(wait, self._settings.breaker_pause)
        wait *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
        return max(wait, min(retry_after or 0.0, 3600.0))


class Delivery:
    """Brings one sink's alerts from the spool to it, in order, one batch at a time."""

    def __init__(self, sink: Sink, settings: DeliverySettings, spool: Spool, metrics: Metrics) -> None:
        self.sink = sink
        self.breaker = Breaker(settings.retry, metrics.breaker.labels(sink.name))
        self.settings = settings
        self._batching, self._retry = settings.batch, settings.retry
        self._spool = spool
        self._metrics = metrics
        self._after = 0
        self._draining = asyncio.Event()
        self._leaving = False
        self._dead: list[DeadLetter] = []
        self._refused = 0  # alerts refused so far, until the first is taken
        self._proven = False

    async def run(self) -> None:
        """Deliver until cancelled, or until ``drain`` was called and nothing more can go now."""
        while True:
            seen = self._spool.sequence
            try:
                waiting = await self._next()
                if waiting and not await self._bring(waiting):
                    return
            except Exception as error:
                if isinstance(error, SpoolError):
                    log.error("cannot work with the spool; trying again", sink=self.sink.name, error=str(error))
                else:
                    log.exception("delivery has a defect; trying again", sink=self.sink.name)
                await self._pause(_LOOK_AGAIN)
                if self._draining.is_set():
                    return
                continue
            if self._leaving:
                return
            if waiting:
                continue
            if self._draining.is_set():
                return
            await self._wait_for_more(seen)

    def drain(self) -> None:
        """Deliver what waits, then stop; stop at the first failure."""
        self._draining.set()

    def leave(self) -> None:
        """Stop after what is under way; another delivery takes over what waits."""
        self._leaving = True
        self._draining.set()

    async def _wait_for_more(self, seen: int) -> None:
        more = asyncio.ensure_future(self._spool.wait_for_more(seen, _LOOK_AGAIN))
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({more, draining}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            more.cancel()
            draining.cancel()

    async def _next(self) -> list[Waiting]:
        """The next batches, after waiting a little for more when they do not fill a request."""
        most = self._batching.max_alerts
        waiting = await self._spool.waiting(self.sink.name, self._after, most)
        short = 0 < sum(len(batch.payloads) for batch in waiting) < most
        if short and self._batching.max_wait and not self._draining.is_set():
            await self._pause(self._batching.max_wait)
            waiting = await self._spool.waiting(self.sink.name, self._after, most)
        return waiting

    async def _bring(self, waiting: Sequence[Waiting]) -> bool:
        """Deliver batches; ``False`` if draining cut it short, and what is left stays in the spool."""
        self._dead = []
        for batch in waiting:
            if batch.damaged:
                self._bury(batch.payloads, Permanent("the spool holds it damaged"), "damaged", 0)
        payloads = [payload for batch in waiting if not batch.damaged for payload in batch.payloads]
        oldest = min(batch.oldest for batch in waiting)
        for request in self._requests(payloads):
            if not await self._send(request):
                return False
            self._metrics.latency.labels(self.sink.name).observe(max(0.0, (time.time_ns() - oldest) / 1e9))
        await self._settle([batch.id for batch in waiting])
        return True

    async def _settle(self, batches: Sequence[int]) -> None:
        while True:
            try:
                await self._spool.done(self.sink.name, batches, self._dead)
                break
            except SpoolError as error:
                if self._draining.is_set():
                    raise
                log.error("delivered, but cannot note it; trying again", sink=self.sink.name, error=str(error))
                await self._pause(_LOOK_AGAIN)
        self._after = batches[-1]

    def _requests(self, payloads: Sequence[bytes]) -> list[Sequence[bytes]]:
        """Cut into requests by the batch limits; one alert larger than a request goes alone."""
        most = min(self._batching.max_alerts, self.sink.most or self._batching.max_alerts)
        requests: list[Sequence[bytes]] = []
        start = size = 0
        for index, payload in enumerate(payloads):
            if index > start and (index - start >= most or size + len(payload) > self._batching.max_size):
                requests.append(payloads[start:index])
                start, size = index, 0
            size += len(payload)
        if payloads:
            requests.append(payloads[start:])
        return requests

    async def _send(self, payloads: Sequence[bytes]) -> bool:
        """Send until every alert is delivered or a dead letter; ``False`` if draining cut it short."""
        todo = deque([payloads])
        give_up_at = time.monotonic() + self._retry.give_up_after
        attempts = 0
        while todo:
            part = todo.popleft()
            if self.breaker.open and len(part) > 1:
                todo.appendleft(part[1:])
                part = part[:1]
            attempts += 1
            error = await self._attempt(part)
            if error is None:
                continue
            failed = part if error.items is None else [part[index] for index in error.items]
            if error.items is not None:
                self._metrics.delivered.labels(self.sink.name).inc(len(part) - len(failed))
            if isinstance(error, Permanent) and self._refused >= _SUSPICIOUS:
                error = Retryable(f"{error}; it has refused every alert so far: is the address right?")
            if isinstance(error, Permanent):
                if error.items is None and len(part) > 1:
                    half = len(part) // 2
                    todo.extendleft([part[half:], part[:half]])
                else:
                    self._refused += 0 if self._proven else len(failed)
                    self._bury(failed, error, "refused", attempts)
            elif time.monotonic() >= give_up_at:
                self._bury(failed, error, "gave_up", attempts)
            else:
                todo.appendleft(failed)
                if not await self._wait_to_retry(error, len(failed)):
                    return False
        return True

    async def _attempt(self, payloads: Sequence[bytes]) -> SendError | None:
        """One request; what went wrong, if anything."""
        name = self.sink.name
        error: SendError
        try:
            async with asyncio.timeout(self._retry.timeout):
                await self.sink.send(Batch(payloads))
        except Permanent as refused:
            self.breaker.succeeded()  # the destination is there and answers
            outcome, error = "refused", refused
        except Retryable as failure:
            outcome, error = "failed", failure
        except TimeoutError:
            outcome, error = "timeout", Retryable(f"no answer within {self._retry.timeout:g} s")
        except Exception as bug:
            log.exception("the sink has a defect", sink=name)
            outcome, error = "defect", Retryable(f"{type(bug).__name__}: {bug}")
        else:
            if self.breaker.failures:
                log.info("delivering again", sink=name)
            self.breaker.succeeded()
            self._proven, self._refused = True, 0
            self._metrics.attempts.labels(name, "delivered").inc()
            self._metrics.delivered.labels(name).inc(len(payloads))
            return None
        self._metrics.attempts.labels(name, outcome).inc()
        return error

    async def _wait_to_retry(self, error: SendError, count: int) -> bool:
        wait = self.breaker.failed(error.retry_after if isinstance(error, Retryable) else None)
        if self._draining.is_set():
            return False
        if self.breaker.failures in {1, self._retry.breaker_failures}:
            log.warning(
                "cannot deliver; alerts wait in the spool", sink=self.sink.name, error=str(error),
                alerts=count, failures=self.breaker.failures, next_attempt_in=round(wait, 1),
            )  # fmt: skip
        await self._pause(wait)
        self._metrics.retried.labels(self.sink.name).inc(count)
        return not self._draining.is_set()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()

    def _bury(self, payloads: Sequence[bytes], error: SendError, reason: str, attempts: int) -> None:
        log.error(
            "kept as dead letters; see `adsbridge queue dead-letters`",
            sink=self.sink.name, alerts=len(payloads), reason=reason, error=str(error),
        )  # fmt: skip
        self._metrics.dead_letters.labels(self.sink.name, reason).inc(len(payloads))
        self._dead.extend(
            DeadLetter("delivery", self.sink.name, reason, str(error), payload, attempts) for payload in payloads
        )
