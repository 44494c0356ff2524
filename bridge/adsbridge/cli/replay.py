"""``adsbridge replay``: recorded events through tag, enrich and route."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from adsbridge import recordings
from adsbridge.cli.options import ConfigOption, FilesArgument, load
from adsbridge.config import Config
from adsbridge.events import Event, encode
from adsbridge.pipeline import deliver_once
from adsbridge.processing import Routed, rows
from adsbridge.wording import plural


def replay(
    files: FilesArgument,
    config: ConfigOption = None,
    deliver: Annotated[bool, typer.Option("--deliver", help="Deliver the alerts to the sinks, too.")] = False,
) -> None:
    """Print the alerts of recorded events as JSON lines; suppressed ones are left out and counted.

    Exit status: 0 all was understood (and delivered); 1 some was not; 2 the configuration or a file's name is wrong.
    """
    loaded = load(config)
    processing = loaded.processing()
    total = _Counts(0, 0, 0)
    to_deliver: list[Routed] = []
    for path in files:
        events, rejected = read_events(path)
        routed = asyncio.run(processing.replay(events))
        alerts = [one for one in routed if not one.suppressed]
        sys.stdout.buffer.writelines(encode(one.alert) + b"\n" for one in alerts)
        counts = _Counts(len(alerts), len(routed) - len(alerts), rejected)
        total = _Counts(*map(sum, zip(total, counts, strict=True)))
        if len(files) > 1:
            typer.echo(f"{path}: {counts}", err=True)
        if deliver:
            to_deliver += alerts
    sys.stdout.buffer.flush()
    typer.echo(str(total), err=True)
    delivered = _deliver(loaded, to_deliver) if deliver else True
    if total.rejected or not delivered:
        raise typer.Exit(1)


class _Counts(NamedTuple):
    alerts: int
    suppressed: int
    rejected: int

    def __str__(self) -> str:
        return f"{plural(self.alerts, 'alert')}, {self.suppressed} suppressed, {self.rejected} not understood"


def read_events(path: Path) -> tuple[list[Event], int]:
    """A file's events, and how many records were not understood; those are told on standard error."""
    parsed = recordings.parse(path)
    if not parsed.received:
        typer.echo(f"{path}: holds no record of Falco's or osquery's", err=True)
    for one in parsed.rejected[:5]:
        typer.echo(f"{path}: {one.reason}: {one.detail}", err=True)
    if (more := len(parsed.rejected) - 5) > 0:
        typer.echo(f"{path}: and {more} more", err=True)
    return parsed.events, len(parsed.rejected)


def _deliver(config: Config, routed: list[Routed]) -> bool:
    left = asyncio.run(deliver_once(config, rows(routed)))
    for name, count in left.items():
        typer.echo(f"sink {name}: {plural(count, 'alert')} not delivered", err=True)
    return not left
