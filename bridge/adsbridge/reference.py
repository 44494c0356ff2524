"""Reference tables in Markdown, made from the types and components themselves.

``python -m adsbridge.reference FOLDER`` writes them; ``--verify`` only tells whether they are in step.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import inspect as shapes
from prometheus_client import Histogram
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from adsbridge.components import KINDS, Component, Settings, registry
from adsbridge.config import General
from adsbridge.delivery import DeliverySettings
from adsbridge.events import Alert
from adsbridge.metrics import Metrics
from adsbridge.routing import Match, Route
from adsbridge.units import show_duration, show_size

_MADE = "<!-- Made by `make docs` from the code; edit the descriptions there. -->"


def alert_rows() -> Iterator[tuple[str, str, str]]:
    """(field, type, meaning) of every field of an alert, nested ones with their path."""
    yield from _struct_rows(shapes.type_info(Alert), "")


def _struct_rows(shape: shapes.Type, prefix: str) -> Iterator[tuple[str, str, str]]:
    assert isinstance(shape, shapes.StructType)  # noqa: S101 - only called with structs
    for field in shape.fields:
        inner, meaning = _unwrap(field.type)
        many = isinstance(inner, shapes.ListType)
        nested = _unwrap(inner.item_type)[0] if isinstance(inner, shapes.ListType) else inner
        name = f"{prefix}{field.encode_name}{'[]' if many else ''}"
        yield name, _kind(nested, many), meaning
        if isinstance(nested, shapes.StructType):
            yield from _struct_rows(nested, f"{name}.")


def _unwrap(shape: shapes.Type) -> tuple[shapes.Type, str]:
    """A type without its description and ``None``."""
    meaning = ""
    if isinstance(shape, shapes.Metadata):
        schema = shape.extra_json_schema or {}
        meaning, shape = schema.get("description", ""), shape.type
    if isinstance(shape, shapes.UnionType):
        shape = next(one for one in shape.types if not isinstance(one, shapes.NoneType))
    return shape, meaning


def _kind(shape: shapes.Type, many: bool) -> str:
    names = {
        shapes.StrType: "string", shapes.IntType: "integer", shapes.EnumType: "string", shapes.RawType: "any JSON",
        shapes.StructType: "object", shapes.DictType: "object", shapes.AnyType: "any JSON",
    }  # fmt: skip
    name = names[type(shape)]
    return f"list of {name}s" if many else name


def settings_rows(
    model: type[BaseModel], prefix: str = "", required: str = "required"
) -> Iterator[tuple[str, str, str]]:
    """(key, default, meaning) of every setting, nested ones with their path."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        nested = _nested(field.annotation)
        if nested is not None and nested not in {Match, Route}:
            yield from settings_rows(nested, f"{key}.", f"needed in {key}" if field.default is None else required)
        else:
            yield key, required if field.is_required() else _default(field), field.description or ""


def _nested(annotation: Any) -> type[Settings] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((one for one in options if isinstance(one, type) and issubclass(one, Settings)), None)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "by the system"
    value = field.default
    described = repr(field.metadata)
    if value is None or isinstance(value, Match):
        return "—"
    if isinstance(value, bool):
        return str(value).lower()
    show = next((show for show in (show_duration, show_size) if show.__name__ in described), str)
    return show(value)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def alert_page() -> str:
    """docs/alert.md."""
    rows = ((f"`{name}`", kind, meaning) for name, kind, meaning in alert_rows())
    return (
        f"{_MADE}\n# The alert, field by field\n\n"
        "An alert is one JSON object. A field whose value is unknown or empty is left out.\n\n"
        f"{_table(('Field', 'Type', 'Meaning'), rows)}\n"
    )


def configuration_page() -> str:
    """docs/configuration.md."""
    head = ("Key", "Default", "Meaning")
    parts = [
        f"{_MADE}\n# Configuration",
        "One YAML file. Durations are written `500ms`, `10s`, `5m`, `2h`, `7d`; sizes `64KiB`, `16MiB`, `1GiB`."
        " `${NAME}` is filled in from the environment, `${file:PATH}` from a file, `$$` is a dollar sign.",
        "`adsbridge check` tells every mistake at once as file:line:column. Exit status: 0 all is right;"
        " 1 something it names cannot be reached; 2 the configuration is wrong.",
        "## General",
        _table(head, _code(settings_rows(General))),
        "## routes",
        "A list; each item has",
        _table(head, _code(settings_rows(Route))),
        "### match",
        "All keys given must hold; of a list, any one value. Globs: `*`, `?`, `[…]`.",
        _table(head, _code(settings_rows(Match))),
    ]
    for kind in KINDS:
        parts.append(f"## {kind}")
        components = registry(kind).values()
        parts.append("Names, each with its settings and its `type`:" if components else "None come with adsbridge.")
        parts += [_component(component) for component in components]
    parts += [
        "## Every sink",
        "Every sink has these, too:",
        _table(head, _code(settings_rows(DeliverySettings))),
    ]
    return "\n\n".join(parts) + "\n"


def _component(component: type[Component]) -> str:
    rows = _table(("Key", "Default", "Meaning"), _code(settings_rows(component.Config)))
    example = "\n".join(f"  {line}" for line in component.example.splitlines())
    example = f"```yaml\nmine:\n  type: {component.type}\n{example}\n```"
    return "\n\n".join([f"### {component.type}", component.description(), example, rows])


def _code(rows: Iterator[tuple[str, str, str]]) -> Iterator[tuple[str, ...]]:
    return ((f"`{key}`", f"`{default}`", meaning) for key, default, meaning in rows)


def metrics_page() -> str:
    """docs/metrics.md."""
    metrics = Metrics()
    rows = []
    for collector in vars(metrics).values():
        for metric in getattr(collector, "describe", list)():
            suffix = "_total" if metric.type == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in getattr(collector, "_labelnames", ()))
            kind = "histogram" if isinstance(collector, Histogram) else metric.type
            rows.append((f"`{metric.name}{suffix}`", kind, labels or "—", metric.documentation))
    return (
        f"{_MADE}\n# Metrics\n\nOn `/metrics` of the admin listener, in Prometheus' text format.\n\n"
        f"{_table(('Metric', 'Type', 'Labels', 'Meaning'), iter(rows))}\n"
    )


PAGES = {"alert.md": alert_page, "configuration.md": configuration_page, "metrics.md": metrics_page}
"""File in docs/ -> what makes it."""


def main(arguments: list[str]) -> int:
    """Write the pages into a folder, or verify them; the exit status."""
    verify = "--verify" in arguments
    folder = Path(next((one for one in arguments if not one.startswith("-")), "docs"))
    stale = [name for name, make in PAGES.items() if not _matches(folder / name, make())]
    for name in stale:
        if verify:
            print(f"{folder / name}: out of step with the code; run `make docs`", file=sys.stderr)
        else:
            (folder / name).write_text(PAGES[name](), encoding="utf-8")
    return 1 if verify and stale else 0


def _matches(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
