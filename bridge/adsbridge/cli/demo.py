"""``adsbridge demo``: the bridge at work, on recorded events."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from adsbridge import logs
from adsbridge.cli.options import OptionalFilesArgument
from adsbridge.demo import show as demonstration
from adsbridge.demo.show import Outcome
from adsbridge.metrics import Metrics


def demo(
    files: OptionalFilesArgument = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per alert, nothing else on stdout.")] = False,
) -> None:
    """Show the bridge at work: recorded Falco and osquery events through the pipeline that `run` starts.

    Without a file, recordings that come with adsbridge are shown.

    Exit status: 0 what was fed was delivered, and what could not be understood is a dead letter; 1 something is
    missing; 2 it cannot start.
    """
    logs.configure("warning")
    if not json:
        typer.echo(_OWN_STORY if not files else _INTRODUCTION)
    try:
        with tempfile.TemporaryDirectory(prefix="adsbridge-demo-") as folder:
            chosen = files or demonstration.builtin()
            length = 0.0 if files or json else _LENGTH
            outcome = asyncio.run(demonstration.show(chosen, Path(folder), "json" if json else "text", length=length))
    except OSError as error:
        typer.echo(f"{error.filename}: {error.strerror}", err=True)
        raise typer.Exit(2) from None
    print(_summary(outcome), file=sys.stderr if json else sys.stdout)
    if not outcome.right:
        raise typer.Exit(1)


_LENGTH = 4.0  # seconds; a story that a person can follow
_INTRODUCTION = """\
Recorded Falco and osquery events, sent over HTTP and through files as the
sensors do, become alerts:
"""
_OWN_STORY = """\
A container of a web shop was taken over. What Falco and osquery tell of it
goes over HTTP and through files, as these sensors send it, and comes out as
alerts. Where a strategy claims what was seen, the alert says what to do first.
"""
_WHY_HELD_BACK = " (there before osquery first looked: not news)"


def _summary(outcome: Outcome) -> str:
    metrics = outcome.metrics
    held_back = metrics.total(metrics.suppressed)
    fed = ", ".join(f"{count} by {source}" for source, count in sorted(outcome.fed.items()))
    lines = [
        "",
        f"received   {sum(outcome.fed.values())} records: {fed}",
        f"tagged     {_listed(metrics, 'tagged')}; no strategy: {_listed(metrics, 'untagged')}",
        f"delivered  {outcome.delivered} of {outcome.expected} alerts to the webhook, signature checked",
        f"repeated   {outcome.repeated or 'none'}",
        f"held back  {_listed(metrics, 'suppressed')}{_WHY_HELD_BACK if held_back else ''}",
        f"dropped    {_listed(metrics, 'dropped')}",
        f"unreadable {outcome.unreadable or 'none'}; dead letters: {_listed(metrics, 'dead_letters')}",
    ]
    lines += [f"MISSING    {one}" for one in outcome.missing] + [f"NOT FED    {one}" for one in outcome.extra]
    lines.append("all that was fed was delivered" if outcome.right else "what was delivered differs from what was fed")
    return "\n".join(lines)


def _listed(metrics: Metrics, name: str) -> str:
    values = metrics.total(getattr(metrics, name))
    return ", ".join(f"{' '.join(labels)} {count:.0f}" for labels, count in sorted(values.items())) or "none"
