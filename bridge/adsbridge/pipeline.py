"""Wires sources, processing, spool and delivery together; starts, reloads and drains them."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from adsbridge.admin import Admin
from adsbridge.config import Config, SinkConfig, SourceConfig
from adsbridge.delivery import Delivery
from adsbridge.errors import AdsbridgeError, SpoolError, StartError
from adsbridge.intake import Intake
from adsbridge.metrics import Metrics
from adsbridge.sinks.base import Sink
from adsbridge.sources.base import Source
from adsbridge.spool import Commit, Spool, SpoolSettings
from adsbridge.store import Row

_HOUSEKEEPING = 30.0  # seconds between looks at ages and sizes in the spool
_CLOSING = 5.0  # seconds for a sink to let go of its connections and files
log = structlog.get_logger()


class Pipeline:
    """A running bridge.

    Args:
        config: what to run.
    """

    def __init__(self, config: Config) -> None:
        self.metrics = Metrics()
        self._config = config
        self._sources: dict[str, Source] = {}
        self._sinks: dict[str, Sink] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._delivering: dict[str, asyncio.Task[None]] = {}
        self._background: list[asyncio.Task[Any]] = []
        self._admin: Admin | None = None
        self._stopping = False

    @property
    def sources(self) -> dict[str, str]:
        """What each source takes records from."""
        return {name: source.address for name, source in self._sources.items()}

    @property
    def waiting(self) -> dict[str, int]:
        """Alerts in the spool, by sink that they wait for."""
        return self._spool.depths

    @property
    def admin_url(self) -> str | None:
        """Where the admin listener listens."""
        return self._admin.listener.url if self._admin else None

    async def start(self) -> None:
        """Start everything: the spool first, the sources last.

        Raises:
            SpoolError: the spool cannot be opened.
            StartError: a component cannot start; what had started is stopped.
        """
        general = self._config.general
        self._spool = Spool.open(general.spool, self.metrics)
        self._intake = Intake(self._config.processing(), self._spool, self.metrics)
        self._intake_task = asyncio.create_task(self._intake.run(), name="intake")
        try:
            if general.admin is not None:
                self._admin = Admin(general.admin, self.metrics, self._readiness, self._refresh)
                await self._admin.listener.start()
            for name, sink in self._config.sinks.items():
                await self._start_sink(name, sink)
            for name, source in self._config.sources.items():
                await self._start_source(name, source)
        except BaseException:
            await self.stop()
            raise
        self._tell_strays()
        self._in_background(self._housekeeping())

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        self._background.append(asyncio.create_task(work))

    async def _start_source(self, name: str, config: SourceConfig) -> None:
        source = config.component(name, config.settings)
        await source.start(self._intake)
        self._sources[name] = source
        self.metrics.up.labels(name).set(1)
        log.info("taking events", source=name, type=source.type, address=source.address)

    async def _start_sink(self, name: str, config: SinkConfig) -> None:
        sink = config.component(name, config.settings)
        await sink.open()
        self._run_sink(name, sink, config)

    def _run_sink(self, name: str, sink: Sink, config: SinkConfig) -> None:
        delivery = Delivery(sink, config.delivery, self._spool, self.metrics)
        self._sinks[name], self._deliveries[name] = sink, delivery
        self._delivering[name] = asyncio.create_task(delivery.run(), name=f"delivery {name}")
        log.info("delivering alerts", sink=name, type=sink.type, waiting=self._spool.depths.get(name, 0))

    async def finished(self) -> None:
        """Return when every source has come to its end (standard input); files and listeners never do."""
        waited: set[Source] = set()
        while coming := set(self._sources.values()) - waited:
            await asyncio.gather(*(source.finished() for source in coming))
            waited |= coming

    def problems(self) -> dict[str, str]:
        """What stands in the way of alerts, by component; empty when nothing does."""
        found = self._cannot_take()
        for name, source in self._sources.items():
            if source.problem:
                found[f"source {name}"] = source.problem
        for name, delivery in self._deliveries.items():
            if delivery.breaker.open:
                found[f"sink {name}"] = f"{delivery.breaker.failures} failures in a row"
        return found

    def _cannot_take(self) -> dict[str, str]:
        """Why alerts cannot be taken; a sink that is down is no reason, the spool is there for that."""
        found = {}
        if self._stopping:
            found["bridge"] = "stopping"
        if not self._spool.healthy:
            found["spool"] = "cannot be written"
        if self._spool.full:
            found["spool"] = "full"
        for name in self._config.sources.keys() - self._sources.keys():
            found[f"source {name}"] = "not running"
        return found

    def _readiness(self) -> tuple[bool, dict[str, str]]:
        return not self._cannot_take(), self.problems()

    async def _refresh(self) -> None:
        for name, source in self._sources.items():
            self.metrics.up.labels(name).set(source.problem is None)
        with suppress(SpoolError):
            await self._spool.observe()

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            try:
                await self._spool.expire()
                await self._spool.recover()
                await self._spool.observe()
            except Exception as error:
                log.error("cannot look after the spool", error=str(error), exc_info=not isinstance(error, SpoolError))

    async def reload(self, config: Config) -> None:
        """Go over to a new configuration without losing an alert; components that did not change go on.

        Raises:
            StartError: a new component cannot start; the old configuration stays in force.
        """
        if config.general.spool != self._config.general.spool or config.general.admin != self._config.general.admin:
            raise StartError("the spool and the admin listener change with a restart only")
        for name, source in self._sources.items():
            if not source.reloadable and config.sources.get(name) != self._config.sources[name]:
                raise StartError(f"source {name}: standard input changes with a restart only")
        sinks = await self._open_new(config)
        try:
            await self._change_sources(config)
        except BaseException:
            await asyncio.gather(*(sink.close() for sink in sinks.values()))
            raise
        for name, sink in sinks.items():
            if name in self._sinks:
                self._deliveries[name].leave()
                await self._stop_sink(name)
            self._run_sink(name, sink, config.sinks[name])
        self._config, removed = config, self._sinks.keys() - config.sinks.keys()
        await asyncio.gather(*(self._drain_sink(name) for name in removed))
        self._tell_strays()

    async def _open_new(self, config: Config) -> dict[str, Sink]:
        """Sinks that are new or changed, open; none is if one cannot be."""
        opened: dict[str, Sink] = {}
        try:
            for name, wanted in config.sinks.items():
                if wanted != self._config.sinks.get(name):
                    opened[name] = wanted.component(name, wanted.settings)
                    await opened[name].open()
        except BaseException:
            await asyncio.gather(*(sink.close() for sink in opened.values()))
            raise
        return opened

    async def _change_sources(self, config: Config) -> None:
        """Go over to a configuration's sources and processing, or back to what was if one cannot start."""
        old = self._config.sources
        leaving = [name for name in old if config.sources.get(name) != old[name]]
        coming = [name for name in config.sources if config.sources[name] != old.get(name)]
        # An address cannot be served twice, and a renamed source keeps its address: the old ones make room first.
        await asyncio.gather(*(self._stop_source(name) for name in leaving if name in self._sources))
        try:
            async with self._intake.paused():  # so that the new sources' events meet the new routes
                for name in coming:
                    await self._start_source(name, config.sources[name])
                self._intake.processing = config.processing()
        except BaseException:
            await asyncio.gather(*(self._stop_source(name) for name in coming if name in self._sources))
            for name in leaving:
                await self._restore_source(name, old[name])
            raise

    async def _restore_source(self, name: str, config: SourceConfig) -> None:
        try:
            await self._start_source(name, config)
        except StartError as error:
            log.error("a source that gave way cannot start again; reload or restart", source=name, error=str(error))

    async def _stop_source(self, name: str) -> None:
        source = self._sources.pop(name)
        await source.stop()
        self.metrics.up.labels(name).set(0)

    async def _drain_sink(self, name: str) -> None:
        self._deliveries[name].drain()
        await self._stop_sink(name)

    async def _stop_sink(self, name: str) -> None:
        """Stop a sink whose delivery was told to; what it cannot deliver in time stays in the spool."""
        self.metrics.breaker.labels(name).set(0)
        del self._deliveries[name]
        task = self._delivering.pop(name)
        _, late = await asyncio.wait({task}, timeout=self._config.general.drain_timeout)
        if late:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        try:
            async with asyncio.timeout(_CLOSING):
                await self._sinks.pop(name).close()
        except Exception as error:
            log.warning("a sink does not close", sink=name, error=str(error) or type(error).__name__)

    def _tell_strays(self) -> None:
        for name, waiting in self._spool.depths.items():
            if name not in self._config.sinks:
                log.warning(
                    "alerts wait for a sink that the configuration does not have; they stay until spool.max_age,"
                    " or until `adsbridge queue drop --sink` drops them",
                    sink=name, waiting=waiting,
                )  # fmt: skip

    def reopen(self) -> None:
        """Open the sinks' files anew."""
        for sink in self._sinks.values():
            sink.reopen()

    async def stop(self) -> None:
        """Take no more, finish what was taken, deliver what can be delivered, and stop."""
        self._stopping = True
        for name in list(self._sources):
            await self._stop_source(name)
        await self._intake.close()
        await self._intake_task
        await asyncio.gather(*(self._drain_sink(name) for name in list(self._deliveries)))
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._admin is not None:
            await self._admin.listener.stop()
        with suppress(SpoolError):
            await self._spool.observe()
        await self._spool.close()


async def check_sink(name: str, config: SinkConfig) -> str | None:
    """What keeps a sink from delivering, found out without sending an alert; ``None`` if nothing does."""
    sink = config.component(name, config.settings)
    try:
        async with asyncio.timeout(config.delivery.retry.timeout):
            await sink.probe()
    except TimeoutError:
        return f"no answer within {config.delivery.retry.timeout:g} s"
    except (AdsbridgeError, OSError) as error:
        return str(error)
    return None


async def deliver_once(config: Config, rows: list[Row]) -> dict[str, int]:
    """Deliver alerts without a bridge, each sink until its first failure; the alerts left undelivered by sink.

    Raises:
        StartError: a sink cannot start.
    """
    with tempfile.TemporaryDirectory(prefix="adsbridge-") as folder:
        settings = SpoolSettings(path=Path(folder) / "spool.db")
        spool = Spool.open(settings, metrics := Metrics())
        sinks = {name: sink.component(name, sink.settings) for name, sink in config.sinks.items()}
        try:
            await spool.commit(Commit(rows=rows))
            for name, sink in sinks.items():
                await sink.open()
                delivery = Delivery(sink, config.sinks[name].delivery, spool, metrics)
                delivery.drain()
                await delivery.run()
        finally:
            for sink in sinks.values():
                await sink.close()
            await spool.close()
    left = Counter(spool.depths)
    for (name, _), refused in metrics.total(metrics.dead_letters).items():
        left[name] += int(refused)
    return +left
