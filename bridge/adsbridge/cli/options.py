"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adsbridge import config

ConfigOption = Annotated[
    Path | None,
    typer.Option("-c", "--config", envvar=config.ENVIRONMENT, help="Configuration file; safe defaults without one."),
]


def load(path: Path | None) -> config.Config:
    """The configuration in the file, or the default one.

    Raises:
        ConfigError: it is wrong.
    """
    return config.read(path) if path else config.parse(config.DEFAULT)
