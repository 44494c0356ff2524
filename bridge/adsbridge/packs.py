"""osquery packs: one ``.sql`` file per query is the source, the pack's ``.conf`` is made from them.

A query file is a header of ``-- key: value`` comments (a line of ``--`` and two or more spaces continues the
value above it) followed by one SQL statement. osquery does not look at a pack's SQL when it loads it;
``check`` does, against the tables of the osquery version in ``data/osquery_schema.json``.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from importlib import resources
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Final

import msgspec

from adsbridge.errors import ContentError
from adsbridge.events import Severity


class PackError(ContentError):
    """A query file is wrong; the text starts with its ``file:line`` and says what was expected."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One query of a pack.

    Attributes:
        name: the file's stem; unique over all packs.
        pack: the folder's name.
        description: what a row means to a responder.
        strategy: id of the strategy that it belongs to.
        interval: seconds between two runs.
        platform: where osquery runs it.
        severity: how bad a row is.
        false_positives: when a row is harmless.
        removed: whether rows that disappear are reported as well.
        snapshot: whether every run reports all rows.
        sql: the statement as it stands in the file, comments and all.
        path: the file.
        line: the line on which the statement starts.
        tables: the tables that it reads, sorted.
    """

    name: str
    pack: str
    description: str
    strategy: str
    interval: int
    platform: str
    severity: Severity
    false_positives: str
    removed: bool = True
    snapshot: bool = False
    sql: str
    path: Path
    line: int
    tables: tuple[str, ...]


class Table(msgspec.Struct, frozen=True):
    """A table of osquery: its columns with their types, hidden ones included."""

    evented: bool
    columns: dict[str, str]


class Schema(msgspec.Struct, frozen=True):
    """The tables of one osquery version."""

    version: str
    tables: dict[str, Table]


_PLATFORMS: Final = ("linux", "darwin", "windows", "posix", "any")
_LONGEST_INTERVAL: Final = 604_800  # osquery's own limit: a week
_EXTRA_FUNCTIONS: Final = (
    *("carve", "community_id_v1", "community_id_v1_strict", "concat", "concat_ws", "conditional_to_base64"),
    *("find_file_path_in_cmd", "from_base64", "in_cidr_block", "inet_aton", "is_path_deterministic", "md5"),
    *("parent_directory", "regex_match", "regex_split", "sha1", "sha256", "sleep", "split", "to_base64"),
    *("version_compare", "sqrt", "acos", "asin", "atan", "cos", "sin", "tan", "cot", "exp", "log", "log10"),
    *("power", "ceil", "floor", "degrees", "radians", "pi"),
)
"""SQL functions that osquery adds to SQLite's."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*\Z")
_ENTRY: Final = re.compile(r"-- ?([a-z_]+):[ \t]*(.*?)\s*\Z")
_CONTINUED: Final = re.compile(r"--[ \t]{2,}(\S.*?)\s*\Z")
_TOKEN: Final = re.compile(
    r"""(?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
      | (?P<quoted> '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \[[^\]]*\] )
      | (?P<space> \s+ )
      | (?P<end> ; )
      | (?P<word> \w+ )
      | (?P<other> . )""",
    re.VERBOSE | re.DOTALL,
)
_SOURCE: Final = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)", re.IGNORECASE)
_COMMON: Final = re.compile(r"(?:\bWITH\s+(?:RECURSIVE\s+)?|,\s*)(\w+)\s*(?:\([^()]*\)\s*)?AS\s*\(", re.IGNORECASE)
_BLAMED: Final = re.compile(r"no such (?:table|column|function): (\S+)|near \"(.+?)\"|ambiguous column name: (\S+)")


def load_packs(root: Path) -> list[Query]:
    """Every query of every pack below the folder, by pack and name.

    Args:
        root: the folder that holds one folder per pack.

    Raises:
        PackError: a file is wrong, or two queries have the same name.
    """
    queries = [_read(path) for path in sorted(root.glob("*/*.sql"))]
    seen: dict[str, Query] = {}
    for query in queries:
        if query.name in seen:
            other = seen[query.name].path
            raise PackError(f"{query.path}:1: expected a name that no other query has; {other} has it")
        seen[query.name] = query
    return queries


def render(queries: Sequence[Query]) -> str:
    """The JSON text of one pack's ``.conf``.

    Raises:
        ValueError: there is no query, or they are of different packs.
    """
    if len({query.pack for query in queries}) != 1:
        raise ValueError("expected the queries of exactly one pack")
    platforms = {query.platform for query in queries}
    pack: dict[str, object] = {}
    if len(platforms) == 1:
        pack["platform"] = platforms.pop()
    pack["queries"] = {query.name: _entry(query) for query in sorted(queries, key=attrgetter("name"))}
    return msgspec.json.format(msgspec.json.encode(pack), indent=2).decode() + "\n"


def render_all(queries: Iterable[Query]) -> dict[str, str]:
    """The JSON text of every pack's ``.conf``, by the pack's name."""
    by_pack = attrgetter("pack")
    return {pack: render(list(group)) for pack, group in groupby(sorted(queries, key=by_pack), by_pack)}


def check(queries: Iterable[Query], schema: Schema) -> list[str]:
    """What is wrong with the queries, one ``file:line: what`` each; empty when osquery can run them all."""
    with closing(_database(schema)) as database:
        return [mistake for query in queries for mistake in _mistakes(query, database, schema)]


def load_schema() -> Schema:
    """The tables of the osquery version that the packs are written for."""
    text = resources.files("adsbridge").joinpath("data/osquery_schema.json").read_bytes()
    return msgspec.json.decode(text, type=Schema)


def one_line(sql: str) -> str:
    """The statement on one line: without comments and final semicolon, quoted text untouched."""
    parts: list[str] = []
    for token in _TOKEN.finditer(sql):
        blank = token.lastgroup in {"comment", "space"}
        if token.lastgroup == "end" or (blank and (not parts or parts[-1] == " ")):
            continue
        parts.append(" " if blank else token[0])
    return "".join(parts).strip()


def _entry(query: Query) -> dict[str, object]:
    entry: dict[str, object] = {
        "query": one_line(query.sql) + ";",
        "interval": query.interval,
        "description": query.description,
        "platform": query.platform,
    }
    if not query.removed:
        entry["removed"] = False
    if query.snapshot:
        entry["snapshot"] = True
    return entry


def _read(path: Path) -> Query:
    """One query from its file."""
    if not _NAME.match(path.stem):
        raise PackError(f"{path}:1: expected a file name of lower-case letters, digits and underscores")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PackError(f"{path}:1: cannot read: {error}") from None
    start = next((at for at, line in enumerate(lines) if not line.startswith("--")), len(lines))
    while start < len(lines) and not lines[start].strip():
        start += 1
    header = _header(path, lines[:start])
    sql = "\n".join(lines[start:]).rstrip()
    _expect_one_statement(path, start + 1, sql)
    fixed = {"name": path.stem, "pack": path.parent.name, "path": path, "line": start + 1}
    return msgspec.convert({**header, **fixed, "sql": sql, "tables": _tables(sql)}, type=Query)


def _header(path: Path, lines: Sequence[str]) -> dict[str, object]:
    """The header's values, converted; every key must be known and every required one be there."""
    values: dict[str, object] = {}
    for at, key, text in _entries(path, lines):
        if key not in _KEYS:
            raise PackError(f"{path}:{at}: unknown key {key!r}; expected one of {', '.join(_KEYS)}")
        if key in values:
            raise PackError(f"{path}:{at}: {key} is given twice; expected it once")
        try:
            values[key] = _KEYS[key](text)
        except ValueError as error:
            raise PackError(f"{path}:{at}: {key}: expected {error}, not {text!r}") from None
    missing = [key for key in _KEYS if key not in values and key not in _OPTIONAL]
    if missing:
        raise PackError(f"{path}:1: expected a header with '-- {missing[0]}: …'; it is missing")
    return values


def _entries(path: Path, lines: Sequence[str]) -> list[tuple[int, str, str]]:
    """The header's entries as line number, key and text, continuation lines joined."""
    entries: list[tuple[int, str, str]] = []
    for at, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if entry := _ENTRY.match(line):
            entries.append((at, entry[1], entry[2]))
        elif entries and (more := _CONTINUED.match(line)):
            first, key, text = entries[-1]
            entries[-1] = (first, key, f"{text} {more[1]}".strip())
        else:
            raise PackError(f"{path}:{at}: expected '-- key: value', or '--   more text' below one")
    return entries


def _text(value: str) -> str:
    if not value:
        raise ValueError("a sentence")
    return value


def _strategy(value: str) -> str:
    if not re.fullmatch(r"ADS-\d{4}", value):
        raise ValueError("a strategy's id like ADS-0001")
    return value


def _interval(value: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", value) or int(value) > _LONGEST_INTERVAL:
        raise ValueError(f"seconds, from 1 to {_LONGEST_INTERVAL}")
    return int(value)


def _platform(value: str) -> str:
    if value not in _PLATFORMS:
        raise ValueError(f"one of {', '.join(_PLATFORMS)}")
    return value


def _severity(value: str) -> Severity:
    if value not in set(Severity):
        raise ValueError(f"one of {', '.join(Severity)}")
    return Severity(value)


def _switch(value: str) -> bool:
    if value not in {"true", "false"}:
        raise ValueError("true or false")
    return value == "true"


_KEYS: Final[dict[str, Callable[[str], object]]] = {
    "description": _text,
    "strategy": _strategy,
    "interval": _interval,
    "platform": _platform,
    "severity": _severity,
    "false_positives": _text,
    "removed": _switch,
    "snapshot": _switch,
}
_OPTIONAL: Final = frozenset({"removed", "snapshot"})


def _expect_one_statement(path: Path, line: int, sql: str) -> None:
    """Refuse anything but one SELECT, and say where the second statement starts."""
    ended = False
    first = ""
    for token in _TOKEN.finditer(sql):
        if token.lastgroup in {"comment", "space"}:
            continue
        at = line + sql.count("\n", 0, token.start())
        if ended:
            raise PackError(f"{path}:{at}: expected one statement; another starts here")
        if token.lastgroup == "other" and token[0] in "'\"`[":
            raise PackError(f"{path}:{at}: expected a closing quote for the {token[0]} here")
        first = first or token[0].upper()
        if first not in {"SELECT", "WITH"}:
            raise PackError(f"{path}:{at}: expected a statement that starts with SELECT or WITH")
        ended = token.lastgroup == "end"
    if not first:
        raise PackError(f"{path}:{line}: expected one SQL statement below the header; there is none")


def _tables(sql: str) -> tuple[str, ...]:
    """The names after FROM and JOIN, without those that WITH defines."""
    plain = " ".join("''" if t.lastgroup == "quoted" else t[0] for t in _TOKEN.finditer(one_line(sql)))
    plain = re.sub(r"\s+", " ", plain)
    common = {name.lower() for name in _COMMON.findall(plain)} if plain.upper().startswith("WITH ") else set()
    return tuple(sorted({name.lower() for name in _SOURCE.findall(plain)} - common))


def _database(schema: Schema) -> sqlite3.Connection:
    """A database that has osquery's tables, empty, and its functions."""
    database = sqlite3.connect(":memory:")
    for name, table in schema.tables.items():
        columns = ", ".join(f'"{column}" {kind}' for column, kind in table.columns.items())
        database.execute(f'CREATE TABLE "{name}" ({columns})')
    for function in _EXTRA_FUNCTIONS:
        database.create_function(function, -1, _nothing)
    return database


def _nothing(*_arguments: object) -> None:
    """Stands in for a function of osquery: no statement is run, only prepared."""


def _mistakes(query: Query, database: sqlite3.Connection, schema: Schema) -> list[str]:
    mistakes: list[str] = []
    try:
        database.execute(f"EXPLAIN {query.sql}").close()
    except (sqlite3.Error, sqlite3.Warning) as error:
        mistakes.append(f"{query.path}:{_blamed_line(query, str(error))}: {error}")
    evented = [name for name in query.tables if name in schema.tables and schema.tables[name].evented]
    if evented and (query.removed or query.snapshot):
        wanted = "no snapshot" if query.snapshot else "'-- removed: false'"
        mistakes.append(f"{query.path}:1: expected {wanted}, because {evented[0]} holds events, not state")
    return mistakes


def _blamed_line(query: Query, message: str) -> int:
    """The line of the name that SQLite's message quotes; the statement's first line if it quotes none."""
    quoted = _BLAMED.search(message)
    name = next((group for group in quoted.groups() if group), "") if quoted else ""
    at = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", query.sql, re.IGNORECASE) if name else None
    return query.line + (query.sql.count("\n", 0, at.start()) if at else 0)
