r"""osquery's logger lines: results as events, batches and snapshots, and status lines.

Format: https://osquery.readthedocs.io/en/stable/deployment/logging/. Values are strings unless
``logger_numerics`` is on, NULL is "", and a tab arrives as the four characters ``\x09``. ``counter`` 0 marks
the first full result set of a differential query: what was there already, not news. For an evented table it
is news all the same: its rows are things that happened.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple, TypeVar

import msgspec

from adsbridge import timestamps
from adsbridge.errors import ParseError
from adsbridge.events import Container, Event, Host, Network, Process, Severity
from adsbridge.parse import as_text, decode_record, event_id, raw_json
from adsbridge.parse.values import image, integer, number, one_line, text

STATUS_DETECTION = "osquery status"
"""The detection of a status line (osquery's own log)."""

_KNOWN = {
    "name", "hostIdentifier", "calendarTime", "unixTime", "epoch", "counter", "numerics",
    "decorations", "columns", "action", "diffResults", "snapshot",
}  # fmt: skip
_MOST_ROWS = 20_000
_MOST_DECORATION = 16 * 2**20  # bytes, over all rows of a line
_SEVERITIES = [Severity.INFORMATIONAL, Severity.LOW, Severity.HIGH, Severity.CRITICAL]
_GLOG = re.compile(rb"([IWEF])(\d{8}|\d{4}) (\d\d:\d\d:\d\d\.\d{6}) +\d+ ([^ \]]+:\d+)\] (.*)", re.DOTALL | re.ASCII)
_CGROUP_ID = re.compile(r"[0-9a-f]{64}")
_GLOG_HEADER = (b"Log file created at:", b"Running on machine:", b"Running duration", b"Log line format:")

_T = TypeVar("_T", list[Any], dict[str, Any])
_decoder = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


class _Origin(NamedTuple):
    """Where an event comes from: its id, its raw JSON, and the host to name if the line names none."""

    identity: str
    raw: msgspec.Raw
    host: str | None


class _Status(NamedTuple):
    """A line of osquery's own log; ``level`` 0 to 3 is information, warning, error, fatal."""

    level: int
    place: str
    message: str
    time: str


def parse(record: bytes, position: bytes = b"", *, host: str | None = None) -> list[Event]:
    """One line of osquery's to its events, none for an empty batch; see ``adsbridge.parse.Parser``."""
    if record[:1] != b"{":
        return _glog(record, position, host)
    line = decode_record(_decoder, record)
    if "severity" in line and "message" in line and "columns" not in line:
        return [_status(line, _Origin(event_id(record, position), raw_json(record), host))]
    rows = _rows(line)
    if len(rows) == 1 and "columns" in line:
        action, row = rows[0]
        return [_event(line, action, row, _Origin(event_id(record, position), raw_json(record), host))]
    if len(rows) * len(_encode(_decorations(line))) > _MOST_DECORATION:
        raise ParseError("too_many_rows", f"{len(rows)} rows, each with the line's decorations, are too much")
    return [
        _event(
            line,
            action,
            row,
            _Origin(event_id(record, position + b"#%d" % place), _row_record(line, action, row), host),
        )
        for place, (action, row) in enumerate(rows)
    ]


def starts_text(line: bytes) -> bool:
    """Whether a line starts a status line (a message may hold line ends of its own)."""
    return line.startswith(_GLOG_HEADER) or _GLOG.match(line) is not None


def _rows(line: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(action, columns) of each row, whichever of the three shapes the line has."""
    if not isinstance(line.get("name"), str):
        raise ParseError("not_osquery", "expected a query's result with its 'name'; is this osquery's results log?")
    if "diffResults" in line:
        changes = _field(line, "diffResults", dict)
        shapes = [(action, _field(changes, action, list)) for action in ("removed", "added")]
        found = [(action, row) for action, rows in shapes for row in rows]
    elif "snapshot" in line:
        found = [("snapshot", row) for row in _field(line, "snapshot", list)]
    elif "columns" in line:
        action = line.get("action", "added")
        found = [(action if isinstance(action, str) else "added", line["columns"])]
    else:
        raise ParseError("not_osquery", "expected 'columns', 'diffResults' or 'snapshot' beside 'name'")
    if len(found) > _MOST_ROWS:
        raise ParseError("too_many_rows", f"{len(found)} rows in one line; at most {_MOST_ROWS} are taken apart")
    if not all(isinstance(row, dict) for _, row in found):
        raise ParseError("wrong_shape", "each row must be an object of columns")
    return found


def _field(line: dict[str, Any], name: str, kind: type[_T]) -> _T:
    """A list or object of a line's; osquery writes an empty one as ""."""
    value = line.get(name) or kind()
    if not isinstance(value, kind):
        expected = "array" if kind is list else "object"
        raise ParseError("wrong_shape", f"Expected `{expected}`, got `{type(value).__name__}` - at `$.{name}`")
    return value


def _row_record(line: dict[str, Any], action: str, row: dict[str, Any]) -> msgspec.Raw:
    rest = {key: value for key, value in line.items() if key not in {"diffResults", "snapshot", "action"}}
    return msgspec.Raw(_encode({**rest, "columns": row, "action": action}))


def _event(line: dict[str, Any], action: str, row: dict[str, Any], origin: _Origin) -> Event:
    columns = row if line.get("numerics") else typed(row)
    evented = is_evented(frozenset(row))
    name: str = line["name"]
    if action == "added" and integer(line.get("counter")) == 0 and not evented:
        action = "initial"
    return Event(
        id=origin.identity,
        time=_time(line, columns if evented else {}),
        sensor="osquery",
        source="snapshot" if action == "snapshot" else "result",
        detection=name,
        severity=Severity.INFORMATIONAL if action in {"removed", "initial"} else Severity.LOW,
        summary=one_line(_summary(name, action, columns)),
        action=action,
        host=_host(line, origin.host),
        process=_process(columns),
        container=_container(name, columns),
        network=_network(columns),
        decorations=_decorations(line),
        fields=columns,
        raw=origin.raw,
    )


def _time(line: dict[str, Any], columns: dict[str, Any]) -> str:
    seconds = integer(columns.get("time")) or integer(line.get("unixTime"))
    try:
        return timestamps.from_ns(seconds * 1_000_000_000) if seconds and seconds > 0 else timestamps.now()
    except ValueError:
        return timestamps.now()


def _summary(name: str, action: str, columns: dict[str, Any]) -> str:
    telling = sorted(
        (key for key, value in columns.items() if value is not None and value != "" and key not in _DULL), key=_rank
    )
    row = " ".join(f"{key}={columns[key]}" for key in telling[:6]) or "(no columns)"
    return f"{name} ({action}): {row}"


def _rank(column: str) -> int:
    """The command first, then what makes the row news, then what else is known of the process."""
    return 0 if column == "cmdline" else 2 if column in _OF_PROCESS else 1


_OF_PROCESS = {"name", "path", "pid", "uid", "parent_name", "parent_cmdline", "cwd"}
_DULL = {
    "atime", "btime", "ctime", "mtime", "uptime", "time", "mode", "owner_uid", "owner_gid", "egid", "euid", "fsgid",
    "fsuid", "gid", "sgid", "suid", "auid", "md5", "sha1", "inode", "transaction_id", "eid", "start_time", "parent",
    "cgroup_path", "cgroup_namespace", "mnt_namespace", "net_namespace", "pid_namespace",
}  # fmt: skip


def _decorations(line: dict[str, Any]) -> dict[str, Any]:
    given = line.get("decorations")
    top_level = {key: value for key, value in line.items() if key not in _KNOWN}
    return {**given, **top_level} if isinstance(given, dict) else top_level


def _host(line: dict[str, Any], host: str | None) -> Host | None:
    decorations = _decorations(line)
    name = text(decorations.get("hostname")) or text(line.get("hostIdentifier")) or host
    part = Host(name=name, id=text(decorations.get("host_uuid")))
    return None if part == Host() else part


def _process(columns: dict[str, Any]) -> Process | None:
    get = columns.get
    pid = integer(get("pid"))
    if pid is None:
        return None
    path = text(get("path"))
    login_uid = integer(get("auid"))
    return Process(
        pid=pid,
        ppid=integer(get("parent")),
        name=text(get("name")) or (path.rsplit("/", 1)[-1] if path else None),
        executable=path,
        command_line=text(get("cmdline")),
        parent=text(get("parent_name")),
        working_directory=(text(get("cwd")) or "").strip('"') or None,
        user=text(get("username")),
        uid=integer(get("uid")),
        login_uid=None if login_uid in {-1, 4294967295} else login_uid,
    )


def _container(query: str, columns: dict[str, Any]) -> Container | None:
    get = columns.get
    of_docker = "docker" in query or "image_id" in columns
    container_id = text(get("container_id")) or (text(get("id")) if of_docker else None)
    if container_id is None and (found := _CGROUP_ID.findall(text(get("cgroup_path")) or "")):
        container_id = found[-1]
    if container_id is None:
        return None
    repository, tag, digest = image(text(get("image")) or text(get("container_image")))
    name = text(get("container_name")) or (text(get("name")) if of_docker else None)
    name = name.lstrip("/") if name else None
    return Container(id=container_id, name=name, image=repository, tag=tag, digest=digest)


def _network(columns: dict[str, Any]) -> Network | None:
    get = columns.get
    part = Network(
        source_address=text(get("local_address")),
        source_port=integer(get("local_port")),
        destination_address=text(get("remote_address")),
        destination_port=integer(get("remote_port")),
    )
    return None if part == Network() else part


def _status(line: dict[str, Any], origin: _Origin) -> Event:
    """A status line as the filesystem and TLS loggers write it in JSON."""
    level = integer(line["severity"])
    status = _Status(
        level=1 if level is None else level,
        place=f"{line.get('filename', '?')}:{line.get('line', '?')}",
        message=str(line["message"]),
        time=_time(line, {}),
    )
    return _status_event(status, _host(line, origin.host), origin)


def _glog(record: bytes, position: bytes, host: str | None) -> list[Event]:
    """A line of osqueryd.INFO, .WARNING or .ERROR, in glog's format."""
    if record.startswith(_GLOG_HEADER):
        return []
    match = _GLOG.match(record)
    if match is None:
        raise ParseError("not_osquery", f"expected a JSON object or a glog status line, found {as_text(record[:60])!r}")
    letter, day, clock, place, message = (as_text(part) for part in match.groups())
    status = _Status("IWEF".index(letter), place, message, _glog_time(day, clock))
    origin = _Origin(event_id(record, position), msgspec.Raw(_encode(as_text(record))), host)
    return [_status_event(status, Host(name=host) if host else None, origin)]


def _glog_time(day: str, clock: str) -> str:
    """Glog writes local time, and before its 0.5 no year."""
    tomorrow = datetime.now() + timedelta(days=1)
    if len(day) == 4:  # the newest such day; clocks may differ a little
        day = f"{tomorrow.year - (day > f'{tomorrow:%m%d}')}{day}"
    try:
        moment = datetime.strptime(f"{day} {clock}", "%Y%m%d %H:%M:%S.%f")
        return timestamps.from_ns(int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000)
    except (ValueError, OverflowError):
        return timestamps.now()


def _status_event(status: _Status, host: Host | None, origin: _Origin) -> Event:
    return Event(
        id=origin.identity,
        time=status.time,
        sensor="osquery",
        source="status",
        detection=STATUS_DETECTION,
        severity=_SEVERITIES[min(max(status.level, 0), 3)],
        summary=one_line(f"osquery says ({status.place}): {status.message}"),
        host=host,
        fields={"severity": status.level, "origin": status.place, "message": status.message},
        raw=origin.raw,
    )


@cache
def _schema() -> dict[str, Any]:
    source = resources.files("adsbridge.data").joinpath("osquery_schema.json").read_bytes()
    tables: dict[str, Any] = msgspec.json.decode(source)["tables"]
    return tables


@cache
def _numeric_columns() -> frozenset[str]:
    """Columns that are numbers in every table that has them: a row does not name its table."""
    kinds: dict[str, set[bool]] = {}
    for table in _schema().values():
        for column, kind in table["columns"].items():
            kinds.setdefault(column, set()).add(kind not in {"TEXT", "BLOB"})
    return frozenset(column for column, numeric in kinds.items() if numeric == {True})


@cache
def _evented_columns() -> frozenset[str]:
    """Columns that only evented tables have."""
    tables = _schema().values()
    plain = {column for table in tables if not table["evented"] for column in table["columns"]}
    return frozenset(column for table in tables for column in table["columns"]) - plain


@lru_cache(maxsize=1024)
def is_evented(columns: frozenset[str]) -> bool:
    """Whether an evented table gave these columns, its ``time`` among them, alone or joined with others."""
    if "ntime" in columns:  # the bpf_* tables, which osquery removed after 5.23
        return True
    if "time" not in columns:
        return False
    tables = [table for table in _schema().values() if columns <= table["columns"].keys()]
    if not tables:  # a join, or columns with names of their own
        return not columns.isdisjoint(_evented_columns())
    return all(table["evented"] for table in tables)


def typed(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the numbers that its strings mean, where the schema leaves no doubt."""
    numeric = _numeric_columns()
    return {key: number(value) if key in numeric and isinstance(value, str) else value for key, value in row.items()}
