"""``adsbridge packs``: build and check the osquery packs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adsbridge import content, packs
from adsbridge.errors import AdsbridgeError

app = typer.Typer(help="Build and check the osquery packs.")
Root = Annotated[Path | None, typer.Option("--root", help="Folder with the packs; ours without it.")]


@app.command()
def build(
    root: Root = None,
    verify: Annotated[bool, typer.Option("--verify", help="Write nothing; exit 1 if a pack is out of step.")] = False,
) -> None:
    """Write each pack's .conf from its .sql files."""
    root = root or content.folder("packs")
    queries = packs.load_packs(root)
    if not queries:
        typer.echo(_none(root), err=True)
        raise typer.Exit(1)
    stale = False
    for pack, text in packs.render_all(queries).items():
        path = root / f"{pack}.conf"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if verify:
            typer.echo(f"{path}: out of step with {root / pack}/*.sql; run `adsbridge packs build`", err=True)
        else:
            path.write_text(text, encoding="utf-8")
            typer.echo(f"wrote {path}")
    if verify and stale:
        raise typer.Exit(1)


@app.command()
def check(root: Root = None) -> None:
    """Prepare every query against osquery's tables, which osquery itself does not do. Exit status 1: a mistake."""
    try:
        queries = packs.load_packs(root or content.folder("packs"))
        mistakes = packs.check(queries, packs.load_schema()) if queries else [_none(root)]
    except AdsbridgeError as error:
        mistakes = str(error).splitlines()
    for mistake in mistakes:
        typer.echo(mistake, err=True)
    if mistakes:
        raise typer.Exit(1)
    typer.echo(f"{len(queries)} queries are right")


def _none(root: Path | None) -> str:
    return f"{root}: no query; expected one folder per pack, with a .sql file per query"
