"""``adsbridge check`` and ``adsbridge init``: is the configuration right, and one to start from."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from adsbridge import starter
from adsbridge.cli.options import ConfigOption, load
from adsbridge.config import Config
from adsbridge.errors import ConfigError
from adsbridge.pipeline import check_sink
from adsbridge.spool import probe as probe_spool
from adsbridge.wording import plural


def check(
    config: ConfigOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not connect to any sink.")] = False,
) -> None:
    """Check the configuration, the spool's place, and that each sink can be reached.

    Exit status: 0 all is right; 1 the configuration is right but something it names cannot be reached or
    written; 2 the configuration is wrong, every mistake told as file:line:column.
    """
    try:
        loaded = load(config)
    except ConfigError as error:
        for mistake in error.mistakes:
            typer.echo(mistake, err=True)
        typer.echo(plural(len(error.mistakes), "mistake"), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{config or 'safe defaults'}: {_counts(loaded)}")
    problems = [] if offline else asyncio.run(_problems(loaded))
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo("the configuration is right" + (" (sinks not tried)" if offline else ", and every sink can be reached"))


def _counts(config: Config) -> str:
    counts = {"source": config.sources, "route": config.routes, "sink": config.sinks}
    parts = [plural(len(found), word) for word, found in counts.items()]
    return f"{', '.join(parts)}, {len(config.strategies.all)} strategies"


async def _problems(config: Config) -> list[str]:
    names = list(config.sinks)
    answers = await asyncio.gather(*(check_sink(name, config.sinks[name]) for name in names))
    told = [
        f"sink {name}: {answer.removeprefix(f'sink {name}: ')}"
        for name, answer in zip(names, answers, strict=True)
        if answer
    ]
    spool = probe_spool(config.general.spool)
    return [*told, f"spool: {spool}"] if spool else told


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("adsbridge.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented configuration to start from."""
    if path.exists() and not force:
        typer.echo(f"{path} is there already; --force replaces it", err=True)
        raise typer.Exit(1)
    try:
        path.write_text(starter.text(), encoding="utf-8")
    except OSError as error:
        typer.echo(f"cannot write {path}: {error.strerror}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"wrote {path}; edit it, then: adsbridge check -c {path} && adsbridge run -c {path}")
