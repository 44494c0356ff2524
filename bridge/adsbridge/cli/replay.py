"""``adsbridge replay``: recorded events through tag, enrich and route."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from adsbridge import recordings
from adsbridge.cli.options import ConfigOption, FilesArgument, load
from adsbridge.config import Config
from adsbridge.events import Event, encode
from adsbridge.metrics import Metrics
from adsbridge.pipeline import deliver_once
from adsbridge.processing import Routed, rows
from adsbridge.wording import plural


def replay(
    files: FilesArgument,
    config: ConfigOption = None,
    deliver: Annotated[bool, typer.Option("--deliver", help="Deliver the alerts to the sinks, too.")] = False,
) -> None:
    """Print the alerts of recorded events as JSON lines; suppressed ones are left out and counted.

    Exit status: 0 all was understood (and delivered); 1 some was not; 2 the configuration is wrong.
    """
    loaded = load(config)
    rejected = suppressed = alerts = 0
    routed: list[Routed] = []
    for path in files:
        events, bad = read_events(path)
        rejected += bad
        for one in asyncio.run(loaded.processing().process(events, Metrics())):
            if one.suppressed:
                suppressed += 1
                continue
            alerts += 1
            sys.stdout.buffer.write(encode(one.alert) + b"\n")
            if deliver:
                routed.append(one)
    sys.stdout.buffer.flush()
    typer.echo(f"{plural(alerts, 'alert')}, {suppressed} suppressed, {rejected} not understood", err=True)
    delivered = _deliver(loaded, routed) if deliver else True
    if rejected or not delivered:
        raise typer.Exit(1)


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
