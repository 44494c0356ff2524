"""``adsbridge run``: the bridge itself."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import structlog

from adsbridge import gc_tuning, logs, systemd
from adsbridge.cli.options import ConfigOption, load
from adsbridge.config import Config
from adsbridge.errors import AdsbridgeError
from adsbridge.pipeline import Pipeline

log = structlog.get_logger()


def run(config: ConfigOption = None) -> None:
    """Take events, make alerts, deliver them, until SIGTERM or SIGINT.

    SIGHUP reads the configuration again; a wrong one is refused and the old one stays. SIGUSR1 opens the
    files of sinks anew. Exit status: 0 after a clean stop, 2 if it cannot start.
    """
    loaded = load(config)
    logs.configure(loaded.general.log.level, loaded.general.log.format)
    gc_tuning.apply()
    asyncio.run(_run(loaded, config))


async def _run(config: Config, path: Path | None) -> None:
    loop = asyncio.get_running_loop()
    stop, reload = asyncio.Event(), asyncio.Event()
    pipeline = Pipeline(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    loop.add_signal_handler(signal.SIGUSR1, pipeline.reopen)
    await pipeline.start()
    watchdog = asyncio.create_task(systemd.watchdog())
    reloading = asyncio.create_task(_reload_when_asked(pipeline, path, reload))
    if config.general.admin is not None:
        log.info("serving metrics and health", address=pipeline.admin_url)
    log.info("ready", config=str(path) if path else "safe defaults; `adsbridge init` writes a file to start from")
    systemd.notify("READY=1")
    await _first(stop.wait(), pipeline.finished())
    systemd.notify("STOPPING=1")
    log.info("stopping: finishing what was taken")
    reloading.cancel()
    await asyncio.wait({reloading})
    await pipeline.stop()
    watchdog.cancel()
    log.info("stopped", waiting={name: count for name, count in pipeline.waiting.items() if count})


async def _reload_when_asked(pipeline: Pipeline, path: Path | None, asked: asyncio.Event) -> None:
    while True:
        await asked.wait()
        asked.clear()
        systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            loaded = load(path)
            await pipeline.reload(loaded)
            logs.configure(loaded.general.log.level, loaded.general.log.format)
        except AdsbridgeError as error:
            log.error("the new configuration is refused; the old one stays in force", error=str(error))
        except Exception:
            log.exception("reloading has a defect; the old configuration stays in force")
        else:
            log.info("reloaded", config=str(path) if path else "safe defaults")
        systemd.notify("READY=1")


async def _first(*waits: object) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
