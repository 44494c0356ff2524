"""The configuration: one YAML file, checked whole, every mistake told at once as file:line:column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from pydantic import Field, field_validator

from adsbridge.components import Kind, Settings, registry
from adsbridge.delivery import DeliverySettings
from adsbridge.enrich.base import Enricher
from adsbridge.enrich.labels import Labels, LabelSettings
from adsbridge.errors import ConfigError, ContentError
from adsbridge.listener import ListenerSettings
from adsbridge.positions import Document, Place, suggestion
from adsbridge.processing import Processing, SuppressionSettings
from adsbridge.reachability import World, impossible
from adsbridge.routing import Route, Router
from adsbridge.sinks.base import Sink
from adsbridge.sources.base import Source
from adsbridge.spool import SpoolSettings
from adsbridge.strategy import Strategies, load
from adsbridge.units import Address, Duration, ListenAddress

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


class LogSettings(Settings):
    """The bridge's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least important level written")
    format: Literal["auto", "text", "json"] = Field("auto", description="auto: text in a terminal, else json")


class General(Settings):
    """The file's top level, but for the components and routes."""

    labels: dict[str, str] = Field({}, description="Labels put on every alert, e.g. team, environment; routes can ask")
    strategies: StrategySettings = StrategySettings()
    suppression: SuppressionSettings = SuppressionSettings()
    unmatched: list[str] | None = Field(
        None, description="Sinks of what no route matches; left out: all sinks; []: dropped and counted"
    )
    unclaimed: Literal["route"] | list[str] = Field(
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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError([f"{path}: {reason}; `adsbridge init` writes one to start from"]) from None
    return parse(text, str(path))


def parse(text: str, filename: str = "<default>") -> Config:
    """The configuration in a text; see ``read``."""
    document = Document(text, filename, interpolate=True)
    if document.mistakes:
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
            self._document.add((key,), f"{key}: unknown key{suggestion(key, known)}")
        rest = {key: value for key, value in self._data.items() if key in General.model_fields}
        general = self._document.validate(General, rest)
        sources = self._sources()
        sinks = self._sinks()
        enrichers = self._enrichers(general)
        routes = self._routes(sinks)
        strategies = self._strategies(general)
        if general is None or strategies is None:
            return None
        self._check_sinks_exist(general, sinks)
        sensors = {sensor for source in sources.values() for sensor in source.component.sensors}
        labels = dict(general.labels)
        world = World(frozenset(sensors), frozenset(strategies.all), labels)
        if sources:
            for place, message in impossible([route for _, route in routes], world):
                index = routes[cast("int", place[0])][0]
                self._document.add(("routes", index, *place[1:]), message)
        return Config(general, sources, enrichers, sinks, [route for _, route in routes], strategies)

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
                self._document.add(place, f"{kind}.{name}: expected a 'type', one of {known}")
            elif settings["type"] not in registry(kind):
                message = f"{kind}.{name}.type: there is no {settings['type']}"
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
            settings = self._document.validate(component.Config, own, place)
            if settings is not None:
                found[name] = SourceConfig(component, settings)
        return found

    def _sinks(self) -> dict[str, SinkConfig]:
        found: dict[str, SinkConfig] = {}
        if not self._data.get("sinks"):
            self._document.add(("sinks",), "sinks: at least one is needed")
        for name, kind, own, place in self._components("sinks"):
            component = cast("type[Sink]", registry("sinks")[kind])
            shared = {key: own.pop(key) for key in ("batch", "retry") if key in own}
            settings = self._document.validate(component.Config, own, place)
            delivery = self._document.validate(DeliverySettings, shared, place)
            if settings is not None and delivery is not None:
                found[name] = SinkConfig(component, settings, delivery)
        return found

    def _enrichers(self, general: General | None) -> dict[str, tuple[type[Enricher], Settings]]:
        found: dict[str, tuple[type[Enricher], Settings]] = {}
        for name, kind, own, place in self._components("enrichers"):
            component = cast("type[Enricher]", registry("enrichers")[kind])
            settings = self._document.validate(component.Config, own, place)
            if settings is not None:
                found[name] = (component, settings)
        return found

    def _routes(self, sinks: dict[str, SinkConfig]) -> list[tuple[int, Route]]:
        section = self._data.get("routes") or []
        if not isinstance(section, list):
            self._document.add(("routes",), "routes: expected a list of routes")
            return []
        found: list[tuple[int, Route]] = []
        for index, item in enumerate(section):
            route = self._document.validate(Route, item, ("routes", index))
            if route is None:
                continue
            if route.name in {other.name for _, other in found}:
                self._document.add(
                    ("routes", index, "name"), f"routes.{index}.name: another route is called '{route.name}'"
                )
            self._check_sinks(route.sinks, ("routes", index, "sinks"))
            found.append((index, route))
        return found

    def _check_sinks_exist(self, general: General, sinks: dict[str, SinkConfig]) -> None:
        self._check_sinks(general.unmatched or [], ("unmatched",))
        if not isinstance(general.unclaimed, str):
            self._check_sinks(general.unclaimed, ("unclaimed",))

    def _check_sinks(self, names: Sequence[str], place: Place) -> None:
        known = self._data.get("sinks")
        known = known if isinstance(known, dict) else {}
        where = ".".join(map(str, place))
        for index, name in enumerate(names):
            if name not in known:
                self._document.add((*place, index), f"{where}: no sink is called '{name}'{suggestion(name, known)}")

    def _strategies(self, general: General | None) -> Strategies | None:
        settings = general.strategies if general else StrategySettings()
        try:
            return Strategies(load(settings.folders), settings.link)
        except ContentError as error:
            for line in str(error).splitlines():
                self._document.add(("strategies",), f"strategies: {line}")
            return None
