"""Which alert goes to which sinks, and why.

Routes are tried in order. Each that matches adds its sinks; the first that matches without ``continue``
is the last one tried. What no route matches goes to the ``unmatched`` sinks. What no strategy claims goes
through the routes like the rest, unless ``unclaimed`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field

from adsbridge import attack
from adsbridge.components import Settings
from adsbridge.events import Alert, Severity
from adsbridge.parse.values import one_line
from adsbridge.units import OneOrMore, globs


class Match(Settings):
    """What an alert must be. All keys given must hold; of a list, any one value; globs everywhere."""

    sensor: OneOrMore | None = Field(None, description="falco or osquery")
    source: OneOrMore | None = Field(None, description="Falco's event source; osquery's result, snapshot, status")
    detection: OneOrMore | None = Field(None, description="Falco rule or osquery query")
    strategy: OneOrMore | None = Field(None, description="Strategy id; 'none' for what no strategy claims")
    technique: OneOrMore | None = Field(None, description="ATT&CK id or its successor's")
    severity: Severity | None = Field(None, description="At least this severe")
    tags: OneOrMore | None = Field(None, description="Any of the sensor's tags")
    image: OneOrMore | None = Field(None, description="Container image, with or without its tag")
    namespace: OneOrMore | None = Field(None, description="Kubernetes namespace")
    host: OneOrMore | None = Field(None, description="Host name")
    label: dict[str, OneOrMore] | None = Field(None, description="Labels, each with its values")
    any: list[Match] | None = Field(None, description="At least one of these", min_length=1)
    all: list[Match] | None = Field(None, description="Every one of these", min_length=1)
    not_: Match | None = Field(None, alias="not", description="Not this")


class Route(Settings):
    """A named way from alerts to sinks."""

    name: str = Field(min_length=1, description="Its name, in metrics and in `adsbridge explain`")
    match: Match = Field(default=Match(), description="What it takes; everything if left out")
    sinks: list[str] = Field(min_length=1, description="Where it sends")
    continue_: bool = Field(False, alias="continue", description="Whether later routes are tried after it")


@dataclass(frozen=True)
class Condition:
    """One test of an alert, with its words.

    Attributes:
        words: what it wants.
        holds: whether an alert fulfils it.
        found: what an alert has instead; nothing where the words say enough.
    """

    words: str
    holds: Callable[[Alert], bool]
    found: Callable[[Alert], str] = lambda _: ""

    def unmet(self, alert: Alert) -> str:
        """What it wants, and what the alert has instead."""
        found = self.found(alert)
        return f"{self.words} (it is {one_line(found)})" if found else self.words


class Decision(NamedTuple):
    """Where an alert goes.

    Attributes:
        sinks: their names, without repetition.
        routes: the routes that took it; empty when it went by a default.
        default: ``unmatched`` or ``unclaimed`` when a default decided, else ``None``.
    """

    sinks: tuple[str, ...]
    routes: tuple[str, ...]
    default: Literal["unmatched", "unclaimed"] | None


def _one(key: str, patterns: Sequence[str], value: Callable[[Alert], str | None]) -> Condition:
    matches = globs(patterns)

    def holds(alert: Alert) -> bool:
        found = value(alert)
        return found is not None and matches(found)

    return Condition(f"{key} {' or '.join(patterns)}", holds, lambda alert: value(alert) or "unknown")


def _several(key: str, patterns: Sequence[str], values: Callable[[Alert], Any]) -> Condition:
    matches = globs(patterns)
    return Condition(
        f"{key} {' or '.join(patterns)}",
        lambda alert: any(matches(value) for value in values(alert)),
        lambda alert: ", ".join(sorted(values(alert))) or "unknown",
    )


def _images(alert: Alert) -> list[str]:
    if alert.container is None or alert.container.image is None:
        return []
    image, tag = alert.container.image, alert.container.tag
    return [image, f"{image}:{tag}"] if tag else [image]


_ONE: dict[str, Callable[[Alert], str | None]] = {
    "sensor": lambda alert: alert.sensor,
    "source": lambda alert: alert.source,
    "detection": lambda alert: alert.detection,
    "strategy": lambda alert: alert.strategy.id if alert.strategy else "none",
    "namespace": lambda alert: alert.kubernetes.namespace if alert.kubernetes else None,
    "host": lambda alert: alert.host.name if alert.host else None,
}
_SEVERAL: dict[str, Callable[[Alert], Any]] = {
    "technique": lambda alert: attack.ids(alert.attack),
    "tags": lambda alert: alert.tags,
    "image": _images,
}


def conditions(match: Match) -> list[Condition]:
    """The conditions that a match sets; all must hold."""
    result: list[Condition] = []
    for key, value in _ONE.items():
        if (patterns := getattr(match, key)) is not None:
            result.append(_one(key, patterns, value))
    for key, values in _SEVERAL.items():
        if (patterns := getattr(match, key)) is not None:
            result.append(_several(key, patterns, values))
    if match.severity is not None:
        result.append(_at_least(match.severity))
    for name, patterns in (match.label or {}).items():
        result.append(_one(f"label {name}", patterns, _label(name)))
    return result + _combined(match)


def _at_least(severity: Severity) -> Condition:
    rank = severity.rank
    return Condition(
        f"severity at least {severity}",
        lambda alert: alert.severity.rank >= rank,
        lambda alert: alert.severity,
    )


def _label(name: str) -> Callable[[Alert], str | None]:
    return lambda alert: alert.labels.get(name)


def _combined(match: Match) -> list[Condition]:
    result = [condition for part in match.all or [] for condition in conditions(part)]
    if match.any is not None:
        parts = [_together(part) for part in match.any]
        result.append(
            Condition(
                f"any of ({'; '.join(part.words for part in parts)})",
                lambda alert: any(part.holds(alert) for part in parts),
            )
        )
    if match.not_ is not None:
        part = _together(match.not_)
        result.append(Condition(f"not ({part.words})", lambda alert: not part.holds(alert)))
    return result


def _together(match: Match) -> Condition:
    parts = conditions(match)
    words = " and ".join(part.words for part in parts) or "anything"
    return Condition(words, lambda alert: all(part.holds(alert) for part in parts))


class Router:
    """Decides for each alert.

    Args:
        routes: in the order in which they are tried.
        unmatched: sinks of what no route matches.
        unclaimed: ``route`` to send what no strategy claims through the routes, or its sinks.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        unmatched: Sequence[str],
        unclaimed: Literal["route"] | Sequence[str] = "route",
    ) -> None:
        self._routes = [(route, conditions(route.match)) for route in routes]
        self._unmatched = Decision(tuple(unmatched), (), "unmatched")
        self._unclaimed = None if isinstance(unclaimed, str) else Decision(tuple(unclaimed), (), "unclaimed")

    def decide(self, alert: Alert) -> Decision:
        """Where the alert goes."""
        if self._unclaimed is not None and alert.strategy is None:
            return self._unclaimed
        sinks: dict[str, None] = {}
        taken: list[str] = []
        for route, tests in self._routes:
            if all(test.holds(alert) for test in tests):
                taken.append(route.name)
                sinks.update(dict.fromkeys(route.sinks))
                if not route.continue_:
                    break
        return Decision(tuple(sinks), tuple(taken), None) if taken else self._unmatched

    def explain(self, alert: Alert) -> list[tuple[str, str]]:
        """(route, why it took the alert or why not) for each route, in order."""
        if self._unclaimed is not None and alert.strategy is None:
            return [(route.name, "not tried: no strategy claims the alert") for route, _ in self._routes]
        result: list[tuple[str, str]] = []
        stopped_by = ""
        for route, tests in self._routes:
            failed = [test.unmet(alert) for test in tests if not test.holds(alert)]
            if stopped_by:
                result.append((route.name, f"not tried: {stopped_by} took it and does not continue"))
            elif failed:
                result.append((route.name, f"no: needs {'; needs '.join(failed)}"))
            else:
                held = "; ".join(test.words for test in tests) or "takes everything"
                result.append((route.name, f"yes: {held}"))
                stopped_by = "" if route.continue_ else route.name
        return result
