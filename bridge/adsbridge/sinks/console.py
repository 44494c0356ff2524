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


_CLOUD = {"ct.user.accountid": "AWS account", "ct.region": "region", "gcp.projectId": "GCP project"}
_SHORT_ID = 12  # characters of a container's id that people and docker use
_INDENTATION = 11  # columns before the content of each line


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
                self._terminal.print(render(alert, self._terminal))
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


def render(alert: Alert, terminal: Terminal) -> Text:
    """An alert for people: when, how bad, which strategy, what happened, where, what to do first.

    In a terminal, long lines go on under their beginning; elsewhere they stay whole, to be searched.
    """
    strategy = alert.strategy
    date, _, clock = alert.time.partition("T")
    head = Text()
    head.append(f"{clock[:12]}Z  ", style="dim")
    head.append(alert.severity.upper(), style=_STYLES[alert.severity])
    head.append(f"  {strategy.id} {strategy.title}" if strategy else "  (no strategy)", style="bold")
    lines = [
        _hanging(Text(f"{date:<{_INDENTATION}}", style="dim"), head, terminal),
        _line("what", alert.summary, "", terminal),
        _line("where", where(alert), "", terminal),
        _line("by", f"{alert.sensor}: {one_line(alert.detection)}", "dim", terminal),
    ]
    if strategy:
        lines.append(_line("first", strategy.first_steps[0], "italic", terminal))
        further = len(strategy.first_steps) - 1
        steps = f"{further} further step{'s' * (further > 1)}: " if further else ""
        lines.append(_line("more", steps + strategy.link, "dim", terminal))
    return Text("\n").join(lines)


def _line(label: str, content: str, style: str, terminal: Terminal) -> Text:
    return _hanging(Text(f"    {label:<{_INDENTATION - 4}}", style="dim"), Text(content, style=style), terminal)


def _hanging(label: Text, content: Text, terminal: Terminal) -> Text:
    """The content behind its label, wrapped to the terminal's width with the label's column kept free."""
    room = terminal.width - _INDENTATION
    if terminal.is_terminal and room >= _INDENTATION:
        content = Text("\n" + " " * _INDENTATION).join(content.wrap(terminal, room, overflow="fold"))
    return Text().append_text(label).append_text(content)  # not label + content: that styles all like the label


def where(alert: Alert) -> str:
    """The container, workload, cloud account and host of an alert, as far as they are known."""
    parts = []
    if container := alert.container:
        image = f"{container.image}:{container.tag}" if container.tag else container.image
        name = container.name or (container.id or "")[:_SHORT_ID]
        parts.append(f"container {name}" + (f" (image {image})" if image else ""))
    if (workload := alert.kubernetes) and (workload.pod or workload.namespace):
        parts.append(f"pod {workload.namespace or '?'}/{workload.pod or '?'}")
    for field, what in _CLOUD.items():
        if value := alert.fields.get(field):
            parts.append(f"{what} {value}")
    if alert.host and alert.host.name:
        parts.append(f"host {alert.host.name}")
    return one_line(", ".join(parts) or "unknown")
