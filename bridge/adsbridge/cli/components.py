"""``adsbridge components``: what sources, enrichers and sinks there are, and their settings."""

from __future__ import annotations

from typing import Annotated

import typer

from adsbridge.components import KINDS, Component, Kind, registry
from adsbridge.delivery import DeliverySettings
from adsbridge.reference import settings_rows
from adsbridge.wording import suggestion


def components(
    name: Annotated[str | None, typer.Argument(help="Show the settings of this one.")] = None,
) -> None:
    """List sources, enrichers and sinks, or show one's settings.

    Exit status: 0; 1 there is none of that name; 2 one that another package brings cannot be loaded.
    """
    found = False
    for kind in KINDS:
        for component in registry(kind).values():
            if name is None:
                typer.echo(f"{kind:<10} {component.type:<16} {component.summary()}")
            elif component.type == name:
                found = True
                typer.echo(_described(kind, component))
    if name is not None and not found:
        known = {component.type for kind in KINDS for component in registry(kind).values()}
        typer.echo(f"there is no component '{name}'{suggestion(name, known)}", err=True)
        raise typer.Exit(1)


def _described(kind: Kind, component: type[Component]) -> str:
    rows = [*settings_rows(component.Config), *(settings_rows(DeliverySettings) if kind == "sinks" else ())]
    example = [f"    {line}" for line in (f"type: {component.type}", *component.example.splitlines())]
    settings = [f"  {key:<22} {default:<18} {description}" for key, default, description in rows]
    return "\n".join([f"{kind}:", "  mine:", *example, "", component.description(), "", *settings])
