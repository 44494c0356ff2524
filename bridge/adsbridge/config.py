"""The configuration: one YAML file, checked whole, every mistake told at once as file:line:column."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from adsbridge.components import Kind, Settings, registry
from adsbridge.delivery import DeliverySettings
from adsbridge.enrich.base import Enricher
from adsbridge.enrich.labels import Labels, LabelSettings
from adsbridge.errors import ConfigError, ContentError
from adsbridge.listener import ListenerSettings
from adsbridge.positions import Document, Place, named
from adsbridge.processing import Processing, SuppressionSettings
from adsbridge.reachability import World, impossible
from adsbridge.routing import Route, Router
from adsbridge.sinks.base import Sink
from adsbridge.sources.base import Source
from adsbridge.spool import SpoolSettings
from adsbridge.strategy import Strategies, load
from adsbridge.units import Address, Duration, ListenAddress
from adsbridge.wording import suggestion

ENVIRONMENT = "ADSBRIDGE_CONFIG"
"""Environment variable that names the configuration file."""


class AdminSettings(ListenerSettings):
    """The listener for /metrics, /healthz and /readyz."""

    listen: ListenAddress = Field(Address("127.0.0.1", 2802), description="HOST:PORT to listen on")


class StrategySettings(Settings):
    """Where strategies come from, beside those that adsbridge brings."""

    folders: list[Path] = Field([], description="Folders with further strategies")
    link: str = Field(
        "strategies/{file}",
        description="Link put on alerts; {id} and {file} are filled in, e.g. https://wiki/{id}",
    )

    @field_validator("folders")
    @classmethod
    def _exist(cls, folders: list[Path]) -> list[Path]:
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(f"{folder} is no folder")
        return folders

    @field_validator("link")
    @classmethod
    def _fills_in(cls, link: str) -> str:
        if unknown := set(re.findall(r"\{[^{}]*\}", link)) - {"{id}", "{file}"}:
            raise ValueError(f"{', '.join(sorted(unknown))} is not filled in; expected {{id}} or {{file}}")
        return link


class LogSettings(Settings):
    """The bridge's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least important level written")
    format: Literal["auto", "text", "json"] = Field("auto", description="auto: text in a terminal, else json")


def _route_or_sinks(value: Any) -> Any:
    if value != "route" and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise ValueError("expected 'route', or a list of sinks")
    return value


class General(Settings):
    """The file's top level, but for the components and routes."""

    labels: dict[str, str] = Field({}, description="Labels put on every alert, e.g. team, environment; routes can ask")
    strategies: StrategySettings = StrategySettings()
    suppression: SuppressionSettings = SuppressionSettings()
    unmatched: list[str] | None = Field(
        None, description="Sinks of what no route matches; left out: all sinks; []: dropped and counted"
    )
    unclaimed: Annotated[Literal["route"] | list[str], BeforeValidator(_route_or_sinks)] = Field(
        "route", description="Sinks of what no strategy claims, or 'route' to treat it like the rest"
    )
    spool: SpoolSettings = SpoolSettings()
    admin: AdminSettings | None = Field(AdminSettings(), description="Metrics and health; null switches it off")
    enrichment_budget: Duration = Field(0.25, description="Longest time for all enrichers on one batch")
    drain_timeout: Duration = Field(10.0, description="How long to go on delivering when told to stop")
    log: LogSettings = LogSettings()


class SinkConfig(NamedTuple):
    """A sink's own settings and how to deliver to it."""

    component: type[Sink]
    settings: Settings
    delivery: DeliverySettings


class SourceConfig(NamedTuple):
    """A source's settings."""

    component: type[Source]
    settings: Settings


class Config(NamedTuple):
    """A configuration that is right."""

    general: General
    sources: dict[str, SourceConfig]
    enrichers: dict[str, tuple[type[Enricher], Settings]]
    sinks: dict[str, SinkConfig]
    routes: list[Route]
    strategies: Strategies

    def router(self) -> Router:
        """The router of these routes."""
        unmatched = self.general.unmatched
        return Router(self.routes, list(self.sinks) if unmatched is None else unmatched, self.general.unclaimed)

    def processing(self) -> Processing:
        """Everything between parsing and the spool."""
        labels = Labels(LabelSettings(labels=self.general.labels))
        enrichers = [labels, *(component(settings) for component, settings in self.enrichers.values())]
        return Processing(
            self.strategies,
            enrichers,
            self.general.suppression,
            self.router(),
            budget=self.general.enrichment_budget,
        )


DEFAULT = """\
# Safe defaults: Falco's HTTP output on this machine only, alerts on standard output.
sources:
  falco: {type: falco_http}
sinks:
  console: {type: console}
"""
"""The configuration of ``adsbridge run`` without a file, but for the spool's place."""

_SECTIONS = ("sources", "sinks", "enrichers", "routes")


def read(path: Path) -> Config:
    """The configuration in a file.

    Raises:
        ConfigError: it cannot be read, or is wrong; tells every mistake.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError([f"{path}: {reason}; `adsbridge init` writes one to start from"]) from None
    return parse(text, str(path))


def parse(text: str, filename: str = "<default>") -> Config:
    """The configuration in a text; see ``read``."""
    document = Document(text, filename, interpolate=True)
    if document.data is None and document.mistakes:
        raise ConfigError(document.report())
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        document.add((), "expected keys like sources, sinks and routes")
        raise ConfigError(document.report())
    config = _Reading(document, data).config()
    if document.mistakes or config is None:
        raise ConfigError(document.report())
    return config


class _Reading:
    """One pass over a document that notes all mistakes before it gives up."""

    def __init__(self, document: Document, data: dict[str, Any]) -> None:
        self._document = document
        self._data = data

    def config(self) -> Config | None:
        for key in self._data.keys() - {*_SECTIONS, *General.model_fields}:
            known = [*_SECTIONS, *General.model_fields]
            self._document.add((key,), f"{named((key,))}: unknown key{suggestion(key, known)}", of_key=True)
        general = self._document.validate(General, self._general())
        sources = self._sources()
        sinks = self._sinks()
        enrichers = self._enrichers()
        routes = self._routes()
        for key in ("unmatched", "unclaimed"):
            self._check_sinks((key,), self._data.get(key))
        strategies = self._strategies()
        self._check_reachable(routes, strategies)
        if general is None or strategies is None:
            return None
        return Config(general, sources, enrichers, sinks, [route for _, route in routes], strategies)

    def _general(self) -> dict[str, Any]:
        """The general settings; a section with nothing in it is as good as left out, but ``admin: null`` is said."""
        given = {key: value for key, value in self._data.items() if key in General.model_fields}
        return {key: value for key, value in given.items() if value is not None or key == "admin"}

    def _components(self, kind: Kind) -> list[tuple[str, str, dict[str, Any], Place]]:
        """(name, type, settings, place) of each component in a section whose type is known."""
        section = self._data.get(kind)
        if section is None:
            return []
        if not isinstance(section, dict):
            self._document.add((kind,), f"{kind}: expected names, each with its settings")
            return []
        found = []
        for name, settings in section.items():
            place: Place = (kind, name)
            if not isinstance(settings, dict) or not isinstance(settings.get("type"), str):
                known = ", ".join(sorted(registry(kind)))
                self._document.add(place, f"{named(place)}: expected a 'type', one of {known}")
            elif settings["type"] not in registry(kind):
                message = f"{named(place)}.type: there is no '{settings['type']}' among the {kind}"
                self._document.add((*place, "type"), message + suggestion(settings["type"], registry(kind)))
            else:
                own = {key: value for key, value in settings.items() if key != "type"}
                found.append((name, settings["type"], own, place))
        return found

    def _sources(self) -> dict[str, SourceConfig]:
        found: dict[str, SourceConfig] = {}
        if not self._data.get("sources"):
            self._document.add(("sources",), "sources: at least one is needed")
        for name, kind, own, place in self._components("sources"):
            component = cast("type[Source]", registry("sources")[kind])
            settings = self._document.validate(component.Config, own, place, ["type"])
            if settings is not None:
                found[name] = SourceConfig(component, settings)
        return found

    def _sinks(self) -> dict[str, SinkConfig]:
        found: dict[str, SinkConfig] = {}
        if not self._data.get("sinks"):
            self._document.add(("sinks",), "sinks: at least one is needed")
        for name, kind, own, place in self._components("sinks"):
            component = cast("type[Sink]", registry("sinks")[kind])
            shared = {key: own.pop(key) for key in DeliverySettings.model_fields if key in own}
            settings = self._document.validate(component.Config, own, place, ["type", *DeliverySettings.model_fields])
            delivery = self._document.validate(DeliverySettings, shared, place)
            if settings is not None and delivery is not None:
                found[name] = SinkConfig(component, settings, delivery)
        return found

    def _enrichers(self) -> dict[str, tuple[type[Enricher], Settings]]:
        found: dict[str, tuple[type[Enricher], Settings]] = {}
        for name, kind, own, place in self._components("enrichers"):
            component = cast("type[Enricher]", registry("enrichers")[kind])
            settings = self._document.validate(component.Config, own, place, ["type"])
            if settings is not None:
                found[name] = (component, settings)
        return found

    def _routes(self) -> list[tuple[int, Route]]:
        section = self._data.get("routes") or []
        if not isinstance(section, list):
            self._document.add(("routes",), "routes: expected a list of routes")
            return []
        found: list[tuple[int, Route]] = []
        lines: dict[Any, str] = {}
        for index, item in enumerate(section):
            place: Place = ("routes", index)
            route = self._document.validate(Route, item, place)
            if route is not None:
                found.append((index, route))
            if isinstance(item, dict):
                self._check_sinks((*place, "sinks"), item.get("sinks"))
                self._check_name((*place, "name"), item.get("name"), lines)
        return found

    def _check_name(self, place: Place, name: Any, taken: dict[Any, str]) -> None:
        if not isinstance(name, str):
            return
        if name in taken:
            self._document.add(place, f"{named(place)}: the route at {taken[name]} is called '{name}' already")
        else:
            taken[name] = self._document.where(place)

    def _check_sinks(self, place: Place, names: Any) -> None:
        known = self._data.get("sinks")
        known = known if isinstance(known, dict) else {}
        for index, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str) and name not in known:
                message = f"{named(place)}: no sink is called '{name}'{suggestion(name, known)}"
                self._document.add((*place, index), message)

    def _check_reachable(self, routes: list[tuple[int, Route]], strategies: Strategies | None) -> None:
        labels = self._data.get("labels") or {}
        known = isinstance(labels, dict) and self._document.is_whole(("labels",))
        world = World(
            sensors=self._sensors(),
            known_sensors=_sensors_of(registry("sources")),
            strategies=frozenset(strategies.all) if strategies else None,
            labels=labels if known else None,
            unclaimed_is_routed=self._data.get("unclaimed", "route") == "route",
        )
        for place, message in impossible([route for _, route in routes], world):
            where = ("routes", routes[cast("int", place[0])][0], *place[1:])
            self._document.add(where, f"{named(where)}: {message}")

    def _sensors(self) -> frozenset[str] | None:
        """The sensors that the sources bring, even those with wrong settings; ``None`` if one has a wrong type."""
        section = self._data.get("sources")
        sources = section.values() if isinstance(section, dict) else []
        types = {str(source.get("type")) if isinstance(source, dict) else "" for source in sources}
        return _sensors_of(types) if types and types <= registry("sources").keys() else None

    def _strategies(self) -> Strategies | None:
        """The strategies; ``None`` if they, or where to find them, are wrong."""
        try:
            settings = StrategySettings.model_validate(self._data.get("strategies") or {})
            return Strategies(load(settings.folders), settings.link)
        except ValidationError:  # told with the general settings
            return None
        except ContentError as error:
            for line in str(error).splitlines():
                self._document.add(("strategies",), f"strategies: {line}")
            return None


def _sensors_of(types: Iterable[str]) -> frozenset[str]:
    components = [cast("type[Source]", registry("sources")[kind]) for kind in types]
    return frozenset(sensor for component in components for sensor in component.sensors)
