"""The strategies, and which of them a detection belongs to.

A strategy is a Markdown file with YAML front matter in Palantir's ADS sections
(https://github.com/palantir/alerting-detection-strategy-framework). It claims a detection by naming the Falco
rule or the osquery query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from adsbridge import attack, content
from adsbridge.errors import ContentError
from adsbridge.events import Alert, Attack, Event, Severity, StrategyRef, to_alert
from adsbridge.positions import Document, walk

SECTIONS = (
    "Goal",
    "Categorization",
    "Strategy Abstract",
    "Technical Context",
    "Blind Spots and Assumptions",
    "False Positives",
    "Validation",
    "Priority",
    "Response",
    "Additional Resources",
)
"""Palantir's sections, in their order."""

_FRONT_MATTER = re.compile(r"---\n(.*?\n)---\n(.*)", re.DOTALL)
_HEADING = re.compile(r"^## (.+?)\s*$", re.MULTILINE)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Technique(_Model):
    """An ATT&CK technique that the strategy detects."""

    id: str
    name: str
    tactic: str = Field(pattern=r"^[a-z-]+$")

    @field_validator("id")
    @classmethod
    def _has_form(cls, value: str) -> str:
        if not attack.is_technique(value):
            raise ValueError("expected a technique's id like T1046 or T1003.007")
        return value


class Detection(_Model):
    """A Falco rule or osquery query that belongs to the strategy, by its exact name."""

    falco: str | None = None
    osquery: str | None = None
    pack: str | None = None
    techniques: list[str] = []
    severity: Severity | None = None

    @model_validator(mode="after")
    def _names_one(self) -> Detection:
        if (self.falco is None) == (self.osquery is None):
            raise ValueError("expected either 'falco: RULE' or 'osquery: QUERY'")
        return self

    @property
    def sensor(self) -> Literal["falco", "osquery"]:
        """The sensor that has it."""
        return "falco" if self.falco is not None else "osquery"

    @property
    def name(self) -> str:
        """The rule's or query's name."""
        return self.falco or self.osquery or ""


class Validation(_Model):
    """A way to make the strategy's detections fire."""

    name: str
    needs: str
    run: str
    expect: list[str] = Field(min_length=1)


class Strategy(_Model):
    """One alerting and detection strategy."""

    id: str = Field(pattern=r"^ADS-\d{4}$")
    title: str = Field(min_length=1, max_length=120)
    status: Literal["experimental", "stable", "deprecated"]
    priority: Severity
    techniques: list[Technique] = Field(min_length=1)
    platforms: list[str] = Field(min_length=1)
    detections: list[Detection] = Field(min_length=1)
    first_steps: list[str] = Field(min_length=1, max_length=8)
    validation: list[Validation] = Field(min_length=1)
    path: Path = Field(exclude=True)
    body: str = Field(exclude=True)
    places: list[str] = Field(exclude=True)
    """``file:line:column`` of its id, then of each detection."""

    @model_validator(mode="after")
    def _techniques_are_named(self) -> Strategy:
        known = {technique.id for technique in self.techniques}
        for index, detection in enumerate(self.detections):
            if unknown := set(detection.techniques) - known:
                names = ", ".join(sorted(unknown))
                raise ValueError(f"detections.{index}.techniques: {names} is not among the strategy's techniques")
        return self

    def attacks(self, detection: Detection) -> list[Attack]:
        """The techniques that the detection shows: its own subset, else all of the strategy."""
        wanted = set(detection.techniques)
        return [
            attack.technique(technique.id, technique.name, technique.tactic)
            for technique in self.techniques
            if not wanted or technique.id in wanted
        ]


class Strategies:
    """All strategies, and the answer to whose a detection is.

    Args:
        strategies: what ``load`` returned.
        link: template of the link on each alert; ``{id}`` and ``{file}`` are filled in.

    Raises:
        ContentError: strategies have the same id, or claim the same detection.
    """

    def __init__(self, strategies: Sequence[Strategy], link: str = "strategies/{file}") -> None:
        self.all = {strategy.id: strategy for strategy in strategies}
        self._refs = {strategy.id: _reference(strategy, link) for strategy in strategies}
        self._claims = _claims(strategies)
        self._find = lru_cache(maxsize=4096)(self._look_up)

    def find(self, sensor: str, detection: str) -> tuple[Strategy, Detection] | None:
        """The strategy that claims a detection, and how; ``None`` when none does.

        osquery prefixes a pack's query with ``pack``, its delimiter (any), the pack, and the delimiter again.
        """
        return self._find(sensor, detection)

    def _look_up(self, sensor: str, name: str) -> tuple[Strategy, Detection] | None:
        claim = self._claims.get((sensor, name))
        if claim is not None or sensor != "osquery" or not name.startswith("pack"):
            return claim
        for (_, query), (strategy, detection) in self._claims.items():
            if detection.sensor == "osquery" and _is_packed(name, detection.pack or "", query):
                return strategy, detection
        return None

    def tag(self, event: Event) -> Alert:
        """The event's alert, with the strategy that claims it, its severity and its techniques."""
        alert = to_alert(event)
        claim = self._find(event.sensor, event.detection)
        if claim is None:
            alert.attack = list(attack.from_tags(tuple(event.tags)))
            return alert
        strategy, detection = claim
        alert.strategy = self._refs[strategy.id]
        alert.attack = strategy.attacks(detection)
        alert.severity = _severity(event, strategy, detection)
        if event.detection != detection.name:  # the prefix of a pack's query only hides its name
            alert.summary = alert.summary.replace(event.detection, detection.name, 1)
        return alert


def _claims(strategies: Sequence[Strategy]) -> dict[tuple[str, str], tuple[Strategy, Detection]]:
    """Who claims which detection, by sensor and name; each id and each detection once."""
    claims: dict[tuple[str, str], tuple[Strategy, Detection]] = {}
    taken: dict[str | tuple[str, str], str] = {}
    mistakes = []
    for strategy in strategies:
        keys: list[str | tuple[str, str]] = [strategy.id]
        keys += [(detection.sensor, detection.name) for detection in strategy.detections]
        for key, place in zip(keys, strategy.places, strict=True):
            if key in taken:
                name = key if isinstance(key, str) else f"{key[0]} '{key[1]}'"
                mistakes.append(f"{place}: {name} stands at {taken[key]} already; keep one")
            taken.setdefault(key, place)
        for detection in strategy.detections:
            claims[detection.sensor, detection.name] = strategy, detection
    if mistakes:
        raise ContentError("\n".join(mistakes))
    return claims


def _severity(event: Event, strategy: Strategy, detection: Detection) -> Severity:
    """The detection's own word, else Falco's priority; osquery has no word of its own but the strategy's.

    What osquery saw disappear, or saw there from the beginning, is told as little as it was.
    """
    if event.action in {"removed", "initial"}:
        return event.severity
    if detection.severity is not None:
        return detection.severity
    return strategy.priority if event.sensor == "osquery" else event.severity


def _reference(strategy: Strategy, link: str) -> StrategyRef:
    return StrategyRef(
        id=strategy.id,
        title=strategy.title,
        priority=strategy.priority,
        first_steps=strategy.first_steps,
        link=link.replace("{id}", strategy.id).replace("{file}", strategy.path.name),
    )


def _is_packed(name: str, pack: str, query: str) -> bool:
    delimiter = name[len("pack") :].split(pack, 1)[0] if pack else ""
    return bool(delimiter) and name == f"pack{delimiter}{pack}{delimiter}{query}"


def load(folders: Iterable[Path] = ()) -> list[Strategy]:
    """The strategies that adsbridge brings, then those in the folders given.

    Raises:
        ContentError: files are wrong; says every mistake with file, line and column.
    """
    strategies: list[Strategy] = []
    mistakes: list[str] = []
    for folder in (content.folder("strategies"), *folders):
        try:
            paths = list(walk(folder, ".md"))
        except OSError as error:
            mistakes.append(f"{folder}: cannot read: {error.strerror}")
            continue
        for path in paths:
            try:
                strategies.append(read(path))
            except ContentError as error:
                mistakes.append(str(error))
    if mistakes:
        raise ContentError("\n".join(mistakes))
    return strategies


def read(path: Path) -> Strategy:
    """One strategy from its file.

    Raises:
        ContentError: front matter or sections are wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ContentError(f"{path}:1:1: cannot read: {reason}") from None
    found = _FRONT_MATTER.match(text)
    if found is None:
        raise ContentError(f"{path}:1:1: expected YAML front matter between two lines of '---'")
    document = Document(found[1], str(path), first_line=2)
    strategy = None
    if document.data is not None or not document.mistakes:
        strategy = _validated(document, path, found[2])
    misplaced = _misplaced_section(text, found.start(2))
    mistakes = [*document.report(), *([f"{path}:{misplaced}"] if misplaced else [])]
    if strategy is None or mistakes:
        raise ContentError("\n".join(mistakes))
    return strategy


def _validated(document: Document, path: Path, body: str) -> Strategy | None:
    data = document.data
    if not isinstance(data, dict):
        document.add((), "expected keys like id, title and detections")
        return None
    detections = data.get("detections")
    count = len(detections) if isinstance(detections, list) else 0
    places = [document.where(place) for place in (("id",), *(("detections", index) for index in range(count)))]
    for key in data.keys() & _OURS:
        document.add((key,), f"{key}: unknown key", of_key=True)
    return document.validate(Strategy, {**data, "path": path, "body": body, "places": places})


_OURS = {"path", "body", "places"}


def _misplaced_section(text: str, start: int) -> str | None:
    """``line:column: text`` of the first heading that is not Palantir's next; ``None`` if all stand in order."""
    headings = list(_HEADING.finditer(text, start))
    for index, heading in enumerate(headings):
        expected = f"'## {SECTIONS[index]}'" if index < len(SECTIONS) else "no further section"
        if expected != f"'## {heading[1]}'":
            line = text.count("\n", 0, heading.start()) + 1
            return f"{line}:1: expected {expected} here, found '## {heading[1]}'"
    if len(headings) < len(SECTIONS):
        return f"{text.count(chr(10)) + 1}:1: expected '## {SECTIONS[len(headings)]}'; the file ends without it"
    return None
