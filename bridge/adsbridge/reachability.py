"""Routes that can never match: a mistake to tell when the configuration is read, not when an alert is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adsbridge.positions import Place, suggestion
from adsbridge.routing import Match, Route
from adsbridge.units import globs, is_glob

_SINGLE = ("sensor", "source", "detection", "strategy", "namespace", "host")
_OSQUERY_SOURCES = {"result", "snapshot", "status"}


@dataclass(frozen=True)
class World:
    """What alerts can be at all: the sensors that have a source, the strategies that were loaded, the labels."""

    sensors: frozenset[str]
    strategies: frozenset[str]
    labels: dict[str, str]


def impossible(routes: Sequence[Route], world: World) -> Iterator[tuple[Place, str]]:
    """(place below ``routes``, why) for each route that can never match."""
    closed_by = ""
    for index, route in enumerate(routes):
        if closed_by:
            yield (
                (index,),
                f"route {route.name}: can never match, because {closed_by} before it takes everything",
            )
        yield from _impossible_match(route.match, world, (index, "match"))
        if route.match == Match() and not route.continue_:
            closed_by = route.name


def _impossible_match(match: Match, world: World, place: Place) -> Iterator[tuple[Place, str]]:
    yield from _unknown_values(match, world, place)
    yield from _contradictions(match, place)
    for index, part in enumerate(match.all or []):
        yield from _impossible_match(part, world, (*place, "all", index))
    if match.any:
        found = [list(_impossible_match(part, world, (*place, "any", index))) for index, part in enumerate(match.any)]
        for mistakes in found:
            yield from mistakes
    if match.not_ is not None and match.not_ == Match():
        yield (*place, "not"), "can never match: 'not' of everything is nothing"


def _unknown_values(match: Match, world: World, place: Place) -> Iterator[tuple[Place, str]]:
    known = {"sensor": world.sensors, "strategy": world.strategies | {"none"}}
    for key, values in known.items():
        for pattern in getattr(match, key) or []:
            matches = globs([pattern])
            if not any(matches(value) for value in values):
                yield (
                    (*place, key),
                    f"can never match: no {key} is '{pattern}' here{suggestion(pattern, values)}",
                )
    for name, patterns in (match.label or {}).items():
        if name not in world.labels:
            yield (
                (*place, "label", name),
                f"can never match: no label is called '{name}'{suggestion(name, world.labels)}",
            )
        elif not globs(patterns)(world.labels[name]):
            yield (*place, "label", name), f"can never match: the label {name} is '{world.labels[name]}'"


def _contradictions(match: Match, place: Place) -> Iterator[tuple[Place, str]]:
    together = [match, *(match.all or [])]
    for key in _SINGLE:
        sets = [set(values) for part in together if (values := getattr(part, key)) and not any(map(is_glob, values))]
        if len(sets) > 1 and not set.intersection(*sets):
            yield place, f"can never match: no alert has two values of {key} at once"
    sensors = {value for part in together for value in part.sensor or []}
    sources = {value for part in together for value in part.source or []}
    if sensors == {"falco"} and sources and sources <= _OSQUERY_SOURCES:
        yield (*place, "source"), f"can never match: {', '.join(sorted(sources))} are osquery's, not Falco's"
    if sensors == {"osquery"} and sources and not any(map(is_glob, sources)) and not sources & _OSQUERY_SOURCES:
        yield (*place, "source"), "can never match: osquery's sources are result, snapshot and status"
    if sensors == {"osquery"} and any(part.tags for part in together):
        yield (*place, "tags"), "can never match: osquery's alerts have no tags"
    inverse = match.not_
    if inverse is not None and inverse != Match() and _implied(inverse, match):
        yield (*place, "not"), "can never match: it excludes what the rest asks for"


def _implied(inverse: Match, match: Match) -> bool:
    """Whether all that ``inverse`` asks for stands in ``match`` word for word."""
    asked = inverse.model_dump(exclude_none=True)
    given = match.model_dump(exclude_none=True)
    return all(given.get(key) == value for key, value in asked.items())
