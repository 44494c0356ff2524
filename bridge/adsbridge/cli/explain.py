"""``adsbridge explain``: which strategy and routes an event hits, and why not the others."""

from __future__ import annotations

import asyncio

import typer

from adsbridge.cli.options import ConfigOption, FileArgument, load
from adsbridge.cli.replay import read_events
from adsbridge.parse.values import one_line
from adsbridge.processing import Processing, Routed


def explain(
    file: FileArgument,
    config: ConfigOption = None,
) -> None:
    """Say for each event which strategy and routes it hits, and why not the others.

    Exit status: 0 all was understood; 1 some was not; 2 the configuration or the file's name is wrong.
    """
    processing = load(config).processing()
    events, rejected = read_events(file)
    for routed in asyncio.run(processing.replay(events)):
        typer.echo("\n".join(_explanation(routed, processing)) + "\n")
    if rejected:
        raise typer.Exit(1)


def _explanation(routed: Routed, processing: Processing) -> list[str]:
    alert, decision, suppressed = routed
    lines = [
        f"{alert.time} {alert.sensor}: {one_line(alert.detection)} ({alert.severity})",
        f"  {alert.summary}",
        f"  strategy  {_strategy(routed)}",
    ]
    if suppressed:
        return [*lines, f"  held back {suppressed}: what was there before the query first ran is not news"]
    lines += [f"  route     {name}: {why}" for name, why in processing.router.explain(alert)]
    by = f" (by default: {_DEFAULTS[decision.default]})" if decision.default else ""
    return [*lines, f"  sinks     {', '.join(decision.sinks) or 'none: it is dropped and counted'}{by}"]


_DEFAULTS = {"unmatched": "no route takes it", "unclaimed": "no strategy claims it"}


def _strategy(routed: Routed) -> str:
    alert = routed.alert
    if alert.strategy:
        return f"{alert.strategy.id} {alert.strategy.title}: it names {alert.detection}"
    if alert.source == "status":
        return "none: this is osquery's own log"
    return f"none: no strategy names this {'rule' if alert.sensor == 'falco' else 'query'}"
