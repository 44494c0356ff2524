"""``adsbridge components``: what sources, enrichers and sinks there are, and their settings."""

from __future__ import annotations

from typing import Annotated

import typer

from adsbridge.components import KINDS, registry
from adsbridge.reference import settings_rows


def components(
    name: Annotated[str | None, typer.Argument(help="Show the settings of this one.")] = None,
) -> None:
    """List sources, enrichers and sinks, or show one's settings. Exit status 1: there is none of that name."""
    found = False
    for kind in KINDS:
        for component in registry(kind).values():
            if name is None:
                typer.echo(f"{kind:<10} {component.type:<16} {component.summary()}")
            elif component.type == name:
                found = True
                typer.echo(f"{kind}: {component.type}\n{component.__doc__}\n")
                for key, default, description in settings_rows(component.Config):
                    typer.echo(f"  {key:<20} {default:<16} {description}")
    if name is not None and not found:
        typer.echo(f"there is no component '{name}'", err=True)
        raise typer.Exit(1)
