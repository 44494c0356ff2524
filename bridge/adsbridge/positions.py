"""YAML that remembers where each value stood, so that a mistake is told as file:line:column.

Duplicate keys are mistakes here (PyYAML lets the last one win), and ``${NAME}`` and ``${file:PATH}`` are
filled in, each failure at its own place.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Place = tuple[str | int, ...]
"""The way to a value: keys and indexes from the top."""

_REFERENCE = re.compile(r"\$(?:(\$)|\{([^{}]*)\})")
_NAME = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_DEPTH = 50
_Model = TypeVar("_Model", bound=BaseModel)


class Document:
    """A YAML document: its data, and where each value stood.

    Attributes:
        data: the document as plain Python values.
        mistakes: (line, column, text) of what is wrong so far.
    """

    def __init__(self, text: str, filename: str, *, interpolate: bool = False, first_line: int = 1) -> None:
        self._filename = filename
        self._interpolate = interpolate
        self._first_line = first_line
        self._marks: dict[Place, tuple[int, int]] = {}
        self.mistakes: list[tuple[int, int, str]] = []
        self.data: Any = self._load(text)

    def add(self, place: Place, message: str) -> None:
        """Note a mistake about the value at a place, or about the nearest one above that stands in the file."""
        while place and place not in self._marks:
            place = place[:-1]
        line, column = self._marks.get(place, (self._first_line, 1))
        self.mistakes.append((line, column, message))

    def report(self) -> list[str]:
        """All mistakes as ``file:line:column: text``, in file order."""
        return [f"{self._filename}:{line}:{column}: {text}" for line, column, text in sorted(set(self.mistakes))]

    def validate(self, model: type[_Model], data: Any, place: Place = ()) -> _Model | None:
        """Check part of the document against a pydantic model; mistakes are noted, and ``None`` returned."""
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                self._add_pydantic(model, place, dict(item))
            return None

    def _add_pydantic(self, model: type[BaseModel], place: Place, item: dict[str, Any]) -> None:
        where = place + tuple(item["loc"])
        name = ".".join(str(part) for part in where) or "the file"
        if item["type"] == "extra_forbidden":
            known = model.model_fields if len(item["loc"]) == 1 else ()
            self.add(where, f"{name}: unknown key{suggestion(str(where[-1]), known)}")
        elif item["type"] == "missing":
            self.add(where, f"{name}: is missing")
        else:
            message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            self.add(where, f"{name}: {message[0].lower()}{message[1:]}")

    def _load(self, text: str) -> Any:
        try:
            loader = yaml.SafeLoader(text)
        except yaml.YAMLError as error:
            self._note_yaml_error(error)
            return None
        try:
            node = loader.get_single_node()
            return None if node is None else self._value(loader, node, ())
        except yaml.YAMLError as error:
            self._note_yaml_error(error)
            return None
        finally:
            loader.dispose()

    def _note_yaml_error(self, error: yaml.YAMLError) -> None:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line, column = (mark.line + self._first_line, mark.column + 1) if mark else (self._first_line, 1)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        self.mistakes.append((line, column, f"this is not YAML: {problem}"))

    def _value(self, loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> Any:
        self._mark(place, node)
        if len(place) > _DEPTH:
            self.add(place, f"nests deeper than {_DEPTH} levels")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, child, (*place, index)) for index, child in enumerate(node.value)]
        value = loader.construct_object(node)
        if self._interpolate and isinstance(value, str) and "$" in value:
            return self._filled_in(value, place)
        return value

    def _mark(self, place: Place, node: yaml.Node) -> None:
        self._marks.setdefault(place, (node.start_mark.line + self._first_line, node.start_mark.column + 1))

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, place: Place) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.value in seen and isinstance(key_node, yaml.ScalarNode):
                self._mark_key((*place, key_node.value), key_node)
                self.add((*place, key_node.value), f"{key_node.value}: stands here a second time; keep one")
            seen.add(key_node.value if isinstance(key_node, yaml.ScalarNode) else id(key_node))
        loader.flatten_mapping(node)
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node)
            key = key if isinstance(key, str) else str(key_node.value)
            result[key] = self._value(loader, value_node, (*place, key))
            if not isinstance(value_node, yaml.ScalarNode) or value_node.value == "":
                self._mark_key((*place, key), key_node)
        return result

    def _mark_key(self, place: Place, node: yaml.Node) -> None:
        self._marks[place] = (node.start_mark.line + self._first_line, node.start_mark.column + 1)

    def _filled_in(self, value: str, place: Place) -> str:
        def fill(match: re.Match[str]) -> str:
            if match[1]:
                return "$"
            try:
                return _referenced(match[2])
            except ValueError as error:
                self.add(place, str(error))
                return ""

        return _REFERENCE.sub(fill, value)


def _referenced(reference: str) -> str:
    kind, _, path = reference.partition(":")
    if kind == "file" and path:
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise ValueError(f"cannot read {path}: {reason}") from None
    if not _NAME.match(reference):
        raise ValueError("expected ${NAME} or ${file:PATH}; write $$ for a dollar sign")
    try:
        return os.environ[reference]
    except KeyError:
        raise ValueError(f"the environment has no variable {reference}") from None


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or ``; expected one of x, y``."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; expected one of {', '.join(choices)}" if choices else ""


def walk(folder: Path, suffix: str) -> Iterator[Path]:
    """Files with a suffix directly in a folder, in name order."""
    yield from sorted(path for path in folder.iterdir() if path.suffix == suffix and path.is_file())
