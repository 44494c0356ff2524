"""Routes that can never match: a mistake to tell when the configuration is read, not when an alert is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from adsbridge import attack
from adsbridge.positions import Place
from adsbridge.routing import Match, Route
from adsbridge.units import globs, is_glob
from adsbridge.wording import suggestion

_ALWAYS = ("sensor", "source", "detection", "strategy")
"""What every alert has exactly one of."""
_SINGLE = (*_ALWAYS, "namespace", "host")
_SEVERAL = ("technique", "tags", "image")
_OSQUERY_SOURCES = {"result", "snapshot", "status"}

Mistakes = Iterator[tuple[Place, str]]


@dataclass(frozen=True)
class World:
    """What alerts can be at all; ``None`` for what is not known, because it is wrong itself.

    Attributes:
        sensors: those that a source brings.
        known_sensors: those that some source could bring.
        strategies: ids of the strategies that were loaded.
        labels: the labels on every alert.
        unclaimed_is_routed: whether what no strategy claims goes through the routes.
    """

    sensors: frozenset[str] | None
    known_sensors: frozenset[str]
    strategies: frozenset[str] | None
    labels: dict[str, str] | None
    unclaimed_is_routed: bool = True


def impossible(routes: Sequence[Route], world: World) -> Mistakes:
    """(place below ``routes``, why) for each route, or part of its match, that can never match."""
    closed: list[Route] = []
    for index, route in enumerate(routes):
        if taker := next((other for other in closed if implied(other.match, route.match)), None):
            why = f"can never match: '{taker.name}' before it takes all that it would, and does not continue"
            yield (index,), why
        yield from _impossible(route.match, (), world, (index, "match"))
        if not route.continue_:
            closed.append(route)


def implied(wide: Match, narrow: Match) -> bool:
    """Whether all that ``narrow`` takes, ``wide`` takes too; ``False`` where that cannot be told for sure."""
    parts = _parts(narrow)
    told = (
        all(_takes(getattr(wide, key), [getattr(part, key) for part in parts], key) for key in (*_SINGLE, *_SEVERAL))
        and (wide.severity is None or any(part.severity and part.severity.rank >= wide.severity.rank for part in parts)
             or wide.severity.rank == 0)
        and all(
            _takes(wanted, [(part.label or {}).get(name) for part in parts])
            for name, wanted in (wide.label or {}).items()
        )
        and (wide.any is None or any(implied(one, narrow) for one in wide.any))
        and all(implied(one, narrow) for one in wide.all or [])
        and (wide.not_ is None or any(part.not_ and implied(part.not_, wide.not_) for part in parts))
    )  # fmt: skip
    return told or any(part.any is not None and all(implied(wide, one) for one in part.any) for part in parts)


def _takes(wanted: Sequence[str] | None, given: Iterable[Sequence[str] | None], key: str = "") -> bool:
    """Whether patterns take every value that one of the given lists of patterns takes."""
    if wanted is None or (key in _ALWAYS and "*" in wanted):
        return True
    matches = globs(wanted)
    return any(
        values is not None and all(value in wanted or (not is_glob(value) and matches(value)) for value in values)
        for values in given
    )


def _parts(match: Match) -> list[Match]:
    """The match and all that must hold with it."""
    return [match, *(part for one in match.all or [] for part in _parts(one))]


def _impossible(match: Match, outer: Sequence[Match], world: World, place: Place) -> Mistakes:
    yield from _unknown(match, world, place)
    together = [*outer, *_parts(match)]
    yield from _contradictions(together, world, place)
    for index, part in enumerate(match.all or []):
        yield from _unknown(part, world, (*place, "all", index))
    for index, part in enumerate(match.any or []):
        yield from _impossible(part, together, world, (*place, "any", index))
    for part in _parts(match):
        if part.not_ == Match():
            yield (*place, "not"), "can never match: 'not' of everything is nothing"
        elif part.not_ is not None and any(implied(part.not_, one) for one in together):
            yield (*place, "not"), "can never match: it excludes what the rest asks for"


def _unknown(match: Match, world: World, place: Place) -> Mistakes:
    """Values that no alert can have."""
    for pattern in match.sensor or []:
        if not any(map(globs([pattern]), world.known_sensors)):
            why = f"'{pattern}' can never match: there is no such sensor{suggestion(pattern, world.known_sensors)}"
            yield (*place, "sensor"), why
    for pattern in match.strategy or []:
        yield from _unknown_strategy(pattern, world, (*place, "strategy"))
    for pattern in match.technique or []:
        if not is_glob(pattern) and not attack.is_technique(pattern):
            yield (*place, "technique"), f"'{pattern}' can never match: expected a technique's id like T1046"
    for name, patterns in (match.label or {}).items():
        if world.labels is None:
            continue
        if name not in world.labels:
            why = f"can never match: no label is called '{name}'{suggestion(name, world.labels)}"
            yield (*place, "label", name), why
        elif not globs(patterns)(world.labels[name]):
            yield (*place, "label", name), f"can never match: the label {name} is '{world.labels[name]}'"


def _unknown_strategy(pattern: str, world: World, place: Place) -> Mistakes:
    if world.strategies is None:
        return
    known = world.strategies | ({"none"} if world.unclaimed_is_routed else set())
    if pattern == "none" and pattern not in known:
        yield place, "'none' can never match: what no strategy claims goes to the 'unclaimed' sinks, not through routes"
    elif not any(map(globs([pattern]), known)):
        yield place, f"'{pattern}' can never match: there is no such strategy{suggestion(pattern, known)}"


def _contradictions(parts: Sequence[Match], world: World, place: Place) -> Mistakes:
    """Conditions that no alert fulfils together."""
    for key in _SINGLE:
        if _candidates(parts, key) == set():
            yield place, f"can never match: no alert has two values of {key} at once"
    for name in {name for part in parts for name in part.label or {}}:
        if _left([label for part in parts if (label := (part.label or {}).get(name))]) == set():
            yield place, f"can never match: no alert has two values of the label {name} at once"
    patterns = [part.sensor for part in parts if part.sensor is not None]
    asked = {one for one in world.known_sensors if all(globs(some)(one) for some in patterns)}
    if world.sensors is not None and asked and not asked & world.sensors:
        yield (*place, "sensor"), f"can never match: there is no source for {' or '.join(sorted(asked))}"
    sensors = asked & world.sensors if world.sensors and asked & world.sensors else asked
    sources = _candidates(parts, "source")
    if sensors == {"falco"} and sources and sources <= _OSQUERY_SOURCES:
        yield (*place, "source"), f"can never match: {', '.join(sorted(sources))} is osquery's, not Falco's"
    if sensors == {"osquery"}:
        wanted = [part.source for part in parts if part.source]
        if not any(all(globs(patterns)(one) for patterns in wanted) for one in _OSQUERY_SOURCES):
            yield (*place, "source"), "can never match: osquery's sources are result, snapshot and status"
        if any(part.tags for part in parts):
            yield (*place, "tags"), "can never match: osquery's alerts have no tags"


def _candidates(parts: Sequence[Match], key: str) -> set[str] | None:
    return _left([patterns for part in parts if (patterns := getattr(part, key))])


def _left(lists: Sequence[Sequence[str]]) -> set[str] | None:
    """The values that every one of some lists of patterns takes; ``None`` when globs alone say it."""
    literal = next((patterns for patterns in lists if not any(map(is_glob, patterns))), None)
    if literal is None:
        return None
    return {value for value in literal if all(globs(patterns)(value) for patterns in lists)}
