"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adsbridge import config, recordings

ConfigOption = Annotated[
    Path | None,
    typer.Option("-c", "--config", envvar=config.ENVIRONMENT, help="Configuration file; safe defaults without one."),
]


def _recording(value: str) -> Path:
    path = Path(value)
    try:
        if path != recordings.STDIN:
            path.open("rb").close()
    except OSError as error:
        raise typer.BadParameter(f"{value}: {error.strerror}") from None
    return path


_Recording = typer.Argument(
    parser=_recording, metavar="FILE", help="Falco's or osquery's output, or captures of it; '-' is standard input."
)
FileArgument = Annotated[Path, _Recording]
FilesArgument = Annotated[list[Path], _Recording]
OptionalFilesArgument = Annotated[list[Path] | None, _Recording]


def load(path: Path | None) -> config.Config:
    """The configuration in the file, or the default one.

    Raises:
        ConfigError: it is wrong.
    """
    return config.read(path) if path else config.parse(config.DEFAULT)
