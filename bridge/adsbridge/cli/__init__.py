"""The command line: one file per group of commands; a command only parses, calls and prints."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from adsbridge import __version__, logs
from adsbridge.cli import check, components, demo, explain, packs, queue, replay, run, strategies
from adsbridge.errors import AdsbridgeError

app = typer.Typer(
    name="adsbridge",
    help="Falco and osquery findings about containers, as alerts that say what to do, delivered durably.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run.run)
app.command()(demo.demo)
app.command()(check.check)
app.command()(check.init)
app.command()(explain.explain)
app.command()(replay.replay)
app.command()(strategies.strategies)
app.command()(components.components)
app.add_typer(queue.app, name="queue")
app.add_typer(packs.app, name="packs")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"adsbridge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    logs.configure()


def main() -> None:
    """Run the command line; an error of ours becomes its text and exit status 2."""
    try:
        app()
    except AdsbridgeError as error:
        print(f"adsbridge: {error}", file=sys.stderr)
        raise SystemExit(2) from None
