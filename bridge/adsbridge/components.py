"""Components: sources, enrichers and sinks, each described in its own class.

A component is one file and one line in its folder's registry. Its ``type``, docstring, ``Config`` and example
give the configuration check, the listing on the command line, the documentation table, the metrics' labels
and the contract tests. Other packages add theirs through the entry point groups ``adsbridge.sources``,
``adsbridge.enrichers`` and ``adsbridge.sinks``.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from importlib.metadata import entry_points
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from adsbridge.errors import AdsbridgeError

Kind = Literal["sources", "enrichers", "sinks"]
KINDS: tuple[Kind, ...] = ("sources", "enrichers", "sinks")


class Settings(BaseModel):
    """Base of all configuration models: unknown keys are mistakes, and no error shows a value."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True, validate_default=False)


SettingsClass = type[Settings]


class Component:
    """What every source, enricher and sink declares.

    Attributes:
        type: the name by which the configuration asks for it.
        Config: its settings.
        example: a YAML mapping of its settings, without ``type``.
    """

    type: ClassVar[str]
    Config: ClassVar[SettingsClass]
    example: ClassVar[str] = ""

    @classmethod
    def summary(cls) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(cls) or "").splitlines()[0]


@cache
def registry(kind: Kind) -> dict[str, type[Component]]:
    """Every component of a kind by its type: ours, then those that other packages register.

    Raises:
        AdsbridgeError: a component of another package cannot be loaded, or takes a name that is taken.
    """
    folder = {"sources": "sources", "enrichers": "enrich", "sinks": "sinks"}[kind]
    module = importlib.import_module(f"adsbridge.{folder}")
    found: dict[str, type[Component]] = {component.type: component for component in module.REGISTRY}
    for entry in entry_points(group=f"adsbridge.{kind}"):
        try:
            component = entry.load()
        except Exception as error:
            raise AdsbridgeError(f"entry point {entry.name} ({entry.value}) cannot be loaded: {error}") from error
        if component.type in found:
            raise AdsbridgeError(f"entry point {entry.name} ({entry.value}): the type {component.type!r} is taken")
        found[component.type] = component
    return found
