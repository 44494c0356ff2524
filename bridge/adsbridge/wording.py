"""Pydantic's errors in plain words: what was expected, and what kind of value was found, never the value."""

from __future__ import annotations

import datetime
import difflib
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

_KINDS: dict[type, str] = {
    type(None): "nothing",
    bool: "true or false",
    str: "text",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "keys with values",
    datetime.date: "a date",
    datetime.datetime: "a date",
}
_UNQUOTED = {"a number", "true or false", "a date"}
_TEXT, _NUMBER, _WHOLE, _SWITCH = "text", "a number", "a whole number", "true or false"
_LIST, _KEYS = "a list", "keys with values"
_EXPECTED = {
    "string_type": _TEXT,
    "string_unicode": "text without broken characters",
    "path_type": _TEXT,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": "a smaller number",
    "finite_number": _NUMBER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": _SWITCH,
    "bool_parsing": _SWITCH,
    "list_type": _LIST,
    "dict_type": _KEYS,
    "model_type": _KEYS,
    "model_attributes_type": _KEYS,
}
_BOUNDED = {
    "literal_error": "expected {expected}",
    "enum": "expected {expected}",
    "too_short": "expected at least {min_length} in the list",
    "too_long": "expected at most {max_length} in the list",
    "string_too_short": "expected at least {min_length} character(s)",
    "string_too_long": "expected at most {max_length} characters",
    "string_pattern_mismatch": "expected the form {pattern}",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "path_not_file": "there is no such file",
    "path_not_directory": "there is no such folder",
}


def in_words(error: dict[str, Any]) -> str:
    """What an item of ``ValidationError.errors()`` says, without the value."""
    kind = error["type"]
    if kind in _EXPECTED:
        found = _KINDS.get(type(error["input"]), "something else")
        quotes = "; put it in quotes" if _EXPECTED[kind] == _TEXT and found in _UNQUOTED else ""
        return f"expected {_EXPECTED[kind]}, found {found}{quotes}"
    if kind in _BOUNDED:
        return _BOUNDED[kind].format(**error.get("ctx", {}))
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{message[0].lower()}{message[1:]}"


def known_keys(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys that a model knows at a path inside it; none where it takes any."""
    found: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, str) and found is not None:
            fields = {field.alias or name: field for name, field in found.model_fields.items()}
            found = _model_in(fields[part].annotation) if part in fields else None
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in typing.get_args(annotation))
    return next((model for model in inner if model), None)


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or ``; expected one of x, y``."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; expected one of {', '.join(choices)}" if choices else ""


def plural(count: int, word: str) -> str:
    """``1 alert``, ``2 alerts``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
