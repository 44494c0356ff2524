"""YAML that remembers where each value stood, so that a mistake is told as file:line:column.

Duplicate keys are mistakes here (PyYAML lets the last one win), and ``${NAME}`` and ``${file:PATH}`` are
filled in, each failure at its own place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from adsbridge.wording import in_words, known_keys, suggestion

Place = tuple[str | int, ...]
"""The way to a value: keys and indexes from the top."""

_REFERENCE = re.compile(r"\$(?:(\$)|\{([^{}]*)(\}?))")
_NAME = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_KEY = re.compile(r"[\w ./@-]{1,80}\Z")
_DEPTH = 50
_VALUES = 100_000
_HINTS = {
    "'\\t'": "indent with spaces, not with tabs",
    "mapping values are not allowed": "put quotes around a value with ': ' in it, or indent it as its neighbours",
    "alias": "put quotes around a value that starts with *",
    "expected alphabetic or numeric": "put quotes around a value that starts with * or &",
    "tag": "put quotes around a value that starts with ! or =",
}
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
        self._keys: dict[Place, tuple[int, int]] = {}
        self._unfilled: set[Place] = set()
        self._values = 0
        self.mistakes: list[tuple[int, int, str]] = []
        self.data: Any = self._load(text)

    def add(self, place: Place, message: str, *, of_key: bool = False) -> None:
        """Note a mistake about the value at a place (or its key), or about the nearest above that is in the file.

        What follows from a reference that could not be filled in is not told: the reference itself is.
        """
        if self.is_whole(place):
            self.mistakes.append((*self._where(place, of_key=of_key), message))

    def is_whole(self, place: Place) -> bool:
        """Whether all references at and below a place could be filled in."""
        return all(unfilled[: len(place)] != place for unfilled in self._unfilled)

    def where(self, place: Place) -> str:
        """A place as ``file:line:column``."""
        line, column = self._where(place)
        return f"{self._filename}:{line}:{column}"

    def _where(self, place: Place, *, of_key: bool = False) -> tuple[int, int]:
        if of_key and place in self._keys:
            return self._keys[place]
        return self._marks.get(self._present(place), (self._first_line, 1))

    def _present(self, place: Place) -> Place:
        while place and place not in self._marks:
            place = place[:-1]
        return place

    def report(self) -> list[str]:
        """All mistakes as ``file:line:column: text``, in file order."""
        return [f"{self._filename}:{line}:{column}: {text}" for line, column, text in sorted(set(self.mistakes))]

    def validate(self, model: type[_Model], data: Any, place: Place = (), others: Iterable[str] = ()) -> _Model | None:
        """Check part of the document against a pydantic model; mistakes are noted, and ``None`` returned.

        Args:
            model: what it must be.
            data: the part, as plain values.
            place: where it stands.
            others: keys beside it that the model does not know, to suggest.
        """
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                self._add_pydantic(model, place, dict(item), others)
            return None

    def _add_pydantic(self, model: type[BaseModel], place: Place, item: dict[str, Any], others: Iterable[str]) -> None:
        path = tuple(item["loc"])
        where = place + path
        if item["type"] == "extra_forbidden":
            known = [*known_keys(model, path[:-1]), *(others if len(path) == 1 else ())]
            self.add(where, f"{named(where)}: unknown key{suggestion(str(where[-1]), known)}", of_key=True)
        elif item["type"] == "missing":
            self.add(where, f"{named(where)}: is missing")
        else:
            where = self._present(where)  # a path may go through the names of a union's types
            key, _, rest = (words := in_words(item)).partition(": ")
            about = where + tuple(int(part) if part.isdecimal() else part for part in key.split("."))
            if about in self._marks:  # a check of several keys says which one it is about
                where, words = about, rest
            self.add(where, f"{named(where)}: {words}")

    def _load(self, text: str) -> Any:
        try:
            loader = yaml.SafeLoader(text)
            try:
                node = loader.get_single_node()
                return None if node is None else self._value(loader, node, ())
            finally:
                loader.dispose()
        except yaml.reader.ReaderError as error:
            line, start = text.count("\n", 0, error.position), text.rfind("\n", 0, error.position)
            place = (self._first_line + line, error.position - start)
            self.mistakes.append((*place, f"cannot be read as YAML: character U+{error.character:04X} is not allowed"))
        except yaml.MarkedYAMLError as error:
            self._note_yaml_error(error)
        except RecursionError:
            self.mistakes.append((self._first_line, 1, f"nests too deeply; {_DEPTH} levels are plenty"))
        return None

    def _note_yaml_error(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + self._first_line, mark.column + 1) if mark else (self._first_line, 1)
        problem = ": ".join(filter(None, (error.context, error.problem)))
        hint = next((f"; {hint}" for words, hint in _HINTS.items() if words in problem), "")
        self.mistakes.append((line, column, f"cannot be read as YAML: {problem}{hint}"))

    def _value(self, loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> Any:
        self._marks.setdefault(place, self._position(node))
        self._values += 1
        if self._values > _VALUES:
            raise yaml.MarkedYAMLError(problem="too many values; do aliases multiply?", problem_mark=node.start_mark)
        if len(place) > _DEPTH:
            self.add(place, f"nests deeper than {_DEPTH} levels")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, child, (*place, index)) for index, child in enumerate(node.value)]
        return self._scalar(loader, node, place)

    def _scalar(self, loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> Any:
        try:
            value = loader.construct_object(node)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):  # the constructors check little
            kind = node.tag.rpartition(":")[2]
            self.add(place, f"{named(place)}: looks like a YAML {kind} and is none; put it in quotes")
            return None
        if self._interpolate and isinstance(value, str) and "$" in value:
            return self._filled_in(value, place)
        return value

    def _position(self, node: yaml.Node) -> tuple[int, int]:
        return node.start_mark.line + self._first_line, node.start_mark.column + 1

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        self._note_bad_keys(node, place)
        loader.flatten_mapping(node)  # puts what '<<' merges before the mapping's own keys, which win
        pairs = {key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
        result = {}
        for key, (key_node, value_node) in pairs.items():
            inner: Place = (*place, key)
            self._keys[inner] = self._position(key_node)
            if not isinstance(value_node, yaml.ScalarNode) or (value_node.value == "" and value_node.style is None):
                self._marks[inner] = self._keys[inner]
            result[key] = self._value(loader, value_node, inner)
        return result

    def _note_bad_keys(self, node: yaml.MappingNode, place: Place) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line, column = self._position(key)
            if not isinstance(key, yaml.ScalarNode):
                self.mistakes.append((line, column, "expected a plain key, found a list or keys with values"))
            elif key.value in seen:
                text = f"{named((*place, key.value))}: is on line {seen[key.value]} already; keep one"
                self.mistakes.append((line, column, text))
            else:
                seen[key.value] = line

    def _filled_in(self, value: str, place: Place) -> str:
        def fill(match: re.Match[str]) -> str:
            if match[1]:
                return "$"
            try:
                return _referenced(match[2], closed=bool(match[3]))
            except ValueError as error:
                self.mistakes.append((*self._where(place), f"{named(place)}: {error}"))
                self._unfilled.add(place)
                return ""

        return _REFERENCE.sub(fill, value)


def named(place: Place) -> str:
    """A place in words; what does not look like a key is not shown: a slip may have put a secret there."""
    return ".".join(str(part) if _KEY.match(str(part)) else "…" for part in place) or "the file"


def _referenced(reference: str, *, closed: bool) -> str:
    kind, _, path = reference.partition(":")
    if kind == "file" and path and closed:
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise ValueError(f"cannot read {path}: {reason}") from None
    if not closed or not _NAME.match(reference):
        raise ValueError("expected ${NAME} or ${file:PATH}; write $$ for a dollar sign")
    try:
        return os.environ[reference]
    except KeyError:
        raise ValueError(f"the environment has no variable {reference}") from None


def walk(folder: Path, suffix: str) -> Iterator[Path]:
    """Files with a suffix directly in a folder, in name order."""
    yield from sorted(path for path in folder.iterdir() if path.suffix == suffix and path.is_file())
