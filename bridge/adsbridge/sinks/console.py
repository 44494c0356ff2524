"""Alerts on standard output, for people or as JSON lines."""

from __future__ import annotations

import os
import sys
from typing import Literal, TextIO

from pydantic import Field
from rich.console import Console as Terminal
from rich.text import Text

from adsbridge.components import Settings
from adsbridge.errors import Retryable
from adsbridge.events import Alert, Severity
from adsbridge.parse.values import one_line
from adsbridge.sinks._worker import Worker
from adsbridge.sinks.base import Batch, Sink

_STYLES = {
    Severity.CRITICAL: "bold white on red",
    Severity.HIGH: "bold red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFORMATIONAL: "dim",
}


class ConsoleSettings(Settings):
    """Settings of the console sink."""

    format: Literal["auto", "text", "json"] = Field(
        "auto", description="text for people, json one object per line; auto: text in a terminal, else json"
    )


class Console(Sink):
    """Prints alerts to standard output."""

    type = "console"
    Config = ConsoleSettings
    example = "format: text"

    def __init__(self, name: str, settings: ConsoleSettings, stream: TextIO | None = None) -> None:
        super().__init__(name, settings)
        self._stream = stream or sys.stdout
        as_text = settings.format == "text" or (settings.format == "auto" and self._stream.isatty())
        self._terminal = Terminal(file=self._stream, soft_wrap=True, highlight=False) if as_text else None
        self._worker = Worker(name)

    async def send(self, batch: Batch) -> None:
        """Print each alert; see ``Sink.send``."""
        await self._worker.run(lambda: self._print(batch))

    def _print(self, batch: Batch) -> None:
        try:
            self._write(self._shown(batch))
        except (OSError, ValueError) as error:
            raise Retryable(f"cannot write to standard output: {error}") from error

    def _shown(self, batch: Batch) -> str:
        if self._terminal is None:
            return "".join(payload.decode() + "\n" for payload in batch.payloads)
        with self._terminal.capture() as captured:
            for alert in batch.alerts:
                self._terminal.print(render(alert))
        return captured.get()

    def _write(self, text: str) -> None:
        self._stream.flush()
        try:
            number = self._stream.fileno()
        except OSError:  # a stream in memory
            self._stream.write(text)
            return
        # Past the stream's own buffer: a write that hangs in there would keep the process from ending.
        view = memoryview(text.encode(self._stream.encoding or "utf-8", "backslashreplace"))
        while view:
            view = view[os.write(number, view) :]

    async def close(self) -> None:
        """End the thread; see ``Sink.close``."""
        self._worker.stop()


def render(alert: Alert) -> Text:
    """An alert for people: when, how bad, which strategy, what happened, where, what to do first."""
    text = Text()
    text.append(f"{alert.time[:23].replace('T', ' ')}Z  ", style="dim")
    text.append(f"{alert.severity.upper():<13}", style=_STYLES[alert.severity])
    strategy = alert.strategy
    text.append(f"  {strategy.id} {strategy.title}" if strategy else "  (no strategy)", style="bold")
    text.append(f"\n    what   {alert.summary}\n    where  {where(alert)}")
    text.append(f"\n    by     {alert.sensor}: {one_line(alert.detection)}", style="dim")
    if strategy:
        text.append(f"\n    first  {strategy.first_steps[0]}\n    more   {strategy.link}")
    return text


def where(alert: Alert) -> str:
    """The container, workload and host of an alert, as far as they are known."""
    parts = []
    if container := alert.container:
        image = f"{container.image}:{container.tag}" if container.tag else container.image
        parts.append(f"container {container.name or container.id}" + (f" (image {image})" if image else ""))
    if (workload := alert.kubernetes) and (workload.pod or workload.namespace):
        parts.append(f"pod {workload.namespace or '?'}/{workload.pod or '?'}")
    if alert.host and alert.host.name:
        parts.append(f"host {alert.host.name}")
    return one_line(", ".join(parts) or "unknown")
