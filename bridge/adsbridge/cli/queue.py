"""``adsbridge queue``: what waits in the spool, and its dead letters."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from adsbridge import letters, timestamps
from adsbridge.cli.options import ConfigOption, load
from adsbridge.config import Config
from adsbridge.parse.values import one_line
from adsbridge.store import DeadLetter, Store

app = typer.Typer(help="Look at what waits in the spool, and at dead letters; works beside a running bridge.")
Ids = Annotated[list[int] | None, typer.Argument(help="Dead letters' ids; see `queue dead-letters`.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]


@contextmanager
def _store(config: Config) -> Iterator[Store]:
    path = config.general.spool.path
    if not os.path.exists(path):
        typer.echo(f"{path}: there is no spool yet; it is made by `adsbridge run`", err=True)
        raise typer.Exit(1)
    with Store(path).reading() as store:
        yield store


@app.command()
def status(config: ConfigOption = None) -> None:
    """Show how much waits for each sink, how old it is, and how many dead letters there are."""
    loaded = load(config)
    with _store(loaded) as store:
        with store.transaction():
            size, depths, dead = store.tally.size, store.depths(), store.count_dead_letters()
        typer.echo(f"{store.path}: {size} bytes")
    for sink, depth in sorted(depths.items()):
        age = (time.time_ns() - (depth.oldest or 0)) / 1e9
        known = "" if sink in loaded.sinks else " (no such sink in the configuration)"
        typer.echo(f"  {sink:<20} {depth.alerts:>9} alert(s) waiting, the oldest for {age:.0f} s{known}")
    typer.echo(f"  {'dead letters':<20} {dead:>9}")


@app.command("dead-letters")
def dead_letters(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(help="How many to show, oldest first.", min=0)] = 50,
    json: Annotated[bool, typer.Option("--json", help="JSON lines, with the payloads.")] = False,
) -> None:
    """List dead letters: what could not be understood or delivered, and why."""
    with _store(load(config)) as store:
        found, more = store.dead_letters(limit=limit), store.count_dead_letters() - limit
    for letter in found:
        when = timestamps.from_ns(letter.time)[:19]
        told = f"{letter.stage} {letter.component}: {letter.reason}: {one_line(letter.detail)}"
        typer.echo(_as_json(letter) if json else f"{letter.id:>6} {when} {told}")
    if more > 0:
        typer.echo(f"and {more} newer; --limit shows more", err=True)


def _as_json(letter: DeadLetter) -> str:
    record = {
        "id": letter.id, "time": timestamps.from_ns(letter.time), "stage": letter.stage,
        "component": letter.component, "reason": letter.reason, "detail": letter.detail,
        "attempts": letter.attempts, "payload": letter.payload.decode("utf-8", "replace"),
    }  # fmt: skip
    return letters.to_json(record)


@app.command()
def retry(ids: Ids = None, config: ConfigOption = None, all_: All = False) -> None:
    """Put dead letters back: to their sink, or through parsing and routing again. Exit status 1: some stayed."""
    loaded = load(config)
    with _store(loaded) as store:
        back, stayed = letters.retry(store, _chosen(store, ids, all_), loaded)
    typer.echo(f"{back} put back")
    for letter, why in stayed:
        typer.echo(f"{letter.id} stays: {why}", err=True)
    if stayed:
        raise typer.Exit(1)


@app.command()
def drop(
    ids: Ids = None,
    config: ConfigOption = None,
    all_: All = False,
    sink: Annotated[str | None, typer.Option(help="Drop all that waits for this sink instead.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Drop dead letters, or all that waits for a sink. It is gone for good."""
    with _store(load(config)) as store:
        if sink is not None:
            _sure(f"Drop all that waits for {sink}?", yes)
            with store.transaction():
                dropped = store.drop_sink(sink)
            typer.echo(f"{dropped} alert(s) dropped")
            return
        chosen = [letter.id for letter in _chosen(store, ids, all_)]
        _sure(f"Drop {len(chosen)} dead letter(s)?", yes)
        with store.transaction():
            gone = store.forget_dead_letters(chosen)
        typer.echo(f"{gone} dead letter(s) dropped")


def _chosen(store: Store, ids: list[int] | None, everything: bool) -> list[DeadLetter]:
    if not ids and not everything:
        typer.echo("name dead letters by their ids, or say --all", err=True)
        raise typer.Exit(2)
    found = store.dead_letters(ids or ())
    if missing := set(ids or ()) - {letter.id for letter in found}:
        typer.echo(f"there is no dead letter {', '.join(map(str, sorted(missing)))}", err=True)
        raise typer.Exit(1)
    return found


def _sure(question: str, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True)
