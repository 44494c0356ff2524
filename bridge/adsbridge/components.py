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
from importlib.metadata import EntryPoint, entry_points
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
    def description(cls) -> str:
        """Its docstring."""
        return inspect.cleandoc(cls.__doc__ or "(not described)")

    @classmethod
    def summary(cls) -> str:
        """The first line of its docstring."""
        return cls.description().splitlines()[0]


@cache
def registry(kind: Kind) -> dict[str, type[Component]]:
    """Every component of a kind by its type: ours, then those that other packages register.

    Raises:
        AdsbridgeError: a component of another package cannot be loaded, or takes a name that is taken.
    """
    folder, base = {
        "sources": ("sources", "Source"),
        "enrichers": ("enrich", "Enricher"),
        "sinks": ("sinks", "Sink"),
    }[kind]
    module = importlib.import_module(f"adsbridge.{folder}")
    found: dict[str, type[Component]] = {component.type: component for component in module.REGISTRY}
    for entry in entry_points(group=f"adsbridge.{kind}"):
        component = _load(entry, getattr(importlib.import_module(f"{module.__name__}.base"), base))
        if component.type in found:
            raise AdsbridgeError(f"{_where(entry)}: the type '{component.type}' is taken")
        found[component.type] = component
    return found


def _load(entry: EntryPoint, base: type[Component]) -> type[Component]:
    try:
        component = entry.load()
    except Exception as error:
        raise AdsbridgeError(f"{_where(entry)} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(component, type) and issubclass(component, base)):
        raise AdsbridgeError(f"{_where(entry)}: expected a class that extends {base.__module__}.{base.__name__}")
    if missing := [name for name in dir(base) if _is_abstract(component, name)] + _unset(component, base):
        raise AdsbridgeError(f"{_where(entry)}: the class {component.__name__} has no {', '.join(missing)}")
    if not issubclass(component.Config, Settings):
        raise AdsbridgeError(f"{_where(entry)}: its Config does not extend adsbridge.components.Settings")
    return component


def _is_abstract(component: type[Component], name: str) -> bool:
    return getattr(getattr(component, name, None), "__isabstractmethod__", False)


def _unset(component: type[Component], base: type[Component]) -> list[str]:
    declared = {name for one in base.__mro__ for name in inspect.get_annotations(one)}
    return [name for name in ("type", "Config", "sensors") if name in declared and not hasattr(component, name)]


def _where(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "?"
    return f"package {package}, entry point {entry.group}: {entry.name} = {entry.value}"
