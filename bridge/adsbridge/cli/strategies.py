"""``adsbridge strategies``: what the strategies are, and what one says; where an alert's link leads."""

from __future__ import annotations

from typing import Annotated

import typer

from adsbridge.cli.options import ConfigOption, load
from adsbridge.strategy import Strategy
from adsbridge.wording import plural


def strategies(
    identity: Annotated[str | None, typer.Argument(metavar="[ID]", help="Print this one's document.")] = None,
    config: ConfigOption = None,
) -> None:
    """List the strategies, or print one: first steps, detections, and its document with the response in full.

    Exit status: 0; 1 there is none of that id; 2 the configuration is wrong.
    """
    known = load(config).strategies.all
    if identity is None:
        for strategy in known.values():
            typer.echo(_line(strategy))
        return
    chosen = known.get(identity.upper())
    if chosen is None:
        typer.echo(f"there is no strategy '{identity}'; there are {', '.join(sorted(known))}", err=True)
        raise typer.Exit(1)
    typer.echo(_document(chosen))


def _line(strategy: Strategy) -> str:
    detections = plural(len(strategy.detections), "detection")
    return f"{strategy.id}  {strategy.priority:<13}  {strategy.status:<12}  {detections:>13}  {strategy.title}"


def _document(strategy: Strategy) -> str:
    steps = [f"  {number}. {step}" for number, step in enumerate(strategy.first_steps, 1)]
    detections = [f"  {one.sensor:<8} {one.severity or '':<14} {one.name}".rstrip() for one in strategy.detections]
    parts = [
        f"{strategy.id} {strategy.title}\npriority {strategy.priority}, {strategy.status}\n{strategy.path}",
        "\n".join(["First steps", *steps]),
        "\n".join(["Detections", *detections]),
        strategy.body.strip(),
    ]
    return "\n\n".join(parts)
