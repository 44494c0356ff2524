"""What osquery wrote, in each of its formats, becomes one event per row."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from adsbridge import recordings, timestamps
from adsbridge.errors import ParseError
from adsbridge.events import Container, Event, Host, Network, Process, Severity
from adsbridge.parse import join_continued, osquery, parse_all
from support.samples import DATA, encoded, lines, records

RESULTS = "osquery/event_default/osqueryd.results.log"
LOGS = sorted(str(path.relative_to(DATA)) for path in (DATA / "osquery").glob("*/*.log"))


def events(name: str) -> list[Event]:
    parsed = parse_all(osquery.parse, [(line, b"") for line in lines(name)])
    assert parsed.rejected == []
    return parsed.events


def result(columns: dict[str, Any], **line: Any) -> Event:
    (found,) = osquery.parse(encoded({"name": "q", "counter": 1, "columns": columns, "action": "added", **line}))
    return found


def rows(line: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(action, columns) of a line's rows, read independently of the code under test."""
    if "diffResults" in line:
        changes = line["diffResults"] or {}
        return [(action, row) for action in ("removed", "added") for row in changes.get(action, [])]
    if "snapshot" in line:
        return [("snapshot", row) for row in line["snapshot"]]
    return [(line["action"], line["columns"])]


def test_there_are_recordings_of_every_format() -> None:
    """The parametrised tests below do run on something."""
    assert len(LOGS) == 21


@pytest.mark.parametrize("name", LOGS)
def test_every_recorded_row_is_an_event(name: str) -> None:
    """Each row of each line gives one event with the query, host and action that the line tells, and no other."""
    said = [(line, action, row) for line in records(name) for action, row in rows(line)]
    found = events(name)
    assert len(found) == len(said)
    for event, (line, action, row) in zip(found, said, strict=True):
        assert event.detection == line["name"]
        assert event.time == timestamps.from_ns(line["unixTime"] * 10**9) or "time" in row
        assert (event.action == action) or (event.action, action, line["counter"]) == ("initial", "added", 0)
        assert event.source == ("snapshot" if action == "snapshot" else "result")
        assert event.host is not None
        assert event.host.name == line["hostIdentifier"]
        assert {key: str(value) for key, value in event.fields.items()} == {
            key: str(value) for key, value in row.items()
        }


def test_the_recordings_hold_what_they_should() -> None:
    """The three kinds of news, told apart in a recording whose queries were run again and again."""
    assert Counter(event.action for event in events(RESULTS)) == {"initial": 139, "added": 11, "removed": 5}
    assert Counter(event.action for event in events("osquery/audit_container/osqueryd.results.log")) == {"added": 14}


def test_events_batches_and_snapshots_yield_the_same_rows() -> None:
    """One schedule recorded in four formats gives the same rows, only the clock's differ."""

    def stable(folder: str, file: str) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {}
        for event in events(f"osquery/{folder}/{file}"):
            if event.detection in {"types", "unicode", "os_version", "snap_users"}:
                row = json.dumps({key: str(value) for key, value in event.fields.items()}, sort_keys=True)
                found.setdefault(f"{event.detection} {event.action}", Counter())[row] = 1
        return found

    batch = stable("batch", "osqueryd.results.log")
    assert set(batch) == {"types initial", "unicode initial", "os_version initial"}
    for folder in ("event_default", "numerics_toplevel", "snap_event"):
        assert stable(folder, "osqueryd.results.log") == batch
    snapshots = stable("batch", "osqueryd.snapshots.log")
    assert set(snapshots) == {"snap_users snapshot"}
    for folder in ("event_default", "numerics_toplevel", "snap_event"):
        assert stable(folder, "osqueryd.snapshots.log") == snapshots


def test_every_line_sent_by_the_tls_logger_is_read() -> None:
    """The recorded bodies of the TLS logger hold results, snapshots and status lines; each is found in its capture."""
    for path in sorted((DATA / "osquery/tls/plain").glob("*_log.json")):
        data = json.loads(path.read_bytes())["body"]["data"]
        parsed = recordings.parse(path)
        assert parsed.rejected == []
        assert parsed.received == len(data)
        assert len(parsed.events) == sum(1 if "severity" in line else len(rows(line)) for line in data)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("osquery/audit/osqueryd.WARNING", 1),
        ("osquery/batch/osqueryd.WARNING", 8),
        ("osquery/event_default/osqueryd.WARNING", 20),
        ("osquery/numerics_toplevel/osqueryd.WARNING", 8),
        ("osquery/snap_event/osqueryd.WARNING", 8),
    ],
)
def test_every_status_line_is_an_event_and_the_files_head_is_none(name: str, count: int) -> None:
    """Glog's lines tell of broken queries; the four lines at the head of its file say nothing and are no mistake."""
    found = events(name)
    assert len(found) == count
    assert len(lines(name)) == count + 4
    assert {event.detection for event in found} == {osquery.STATUS_DETECTION}
    assert {event.source for event in found} == {"status"}


def test_a_broken_query_is_told_with_its_place_and_message() -> None:
    """Osquery checks no SQL when it loads a pack; the status line is the only sign."""
    found = events("osquery/event_default/osqueryd.WARNING")[0]
    assert found.severity is Severity.HIGH
    assert found.fields == {
        "severity": 2,
        "origin": "scheduler.cpp:128",
        "message": "Error executing scheduled query bad_sql: no such column: nosuchcol",
    }
    assert found.summary == f"osquery says (scheduler.cpp:128): {found.fields['message']}"


@pytest.mark.parametrize(
    ("level", "severity"),
    [(0, "informational"), ("1", "low"), (2, "high"), (3, "critical"), (9, "critical"), (-1, "informational")],
)
def test_a_status_line_in_json_means_the_same(level: Any, severity: str) -> None:
    """The TLS and filesystem loggers write status lines as JSON, with the severity as number or string."""
    line = {"severity": level, "filename": "a.cpp", "line": 5, "message": "m", "hostIdentifier": "h", "unixTime": 5}
    (found,) = osquery.parse(encoded(line))
    assert (found.severity, found.detection, found.source) == (severity, osquery.STATUS_DETECTION, "status")
    assert found.summary == "osquery says (a.cpp:5): m"
    assert found.host == Host(name="h")
    assert found.time == "1970-01-01T00:00:05.000000000Z"


def test_a_status_message_may_hold_line_ends() -> None:
    """The lines behind a glog line that start none themselves belong to its message."""
    log = [b"E1121 20:44:30.409387 24639 a.cpp:1] first", b"second", b"W1121 20:44:30.409388 24639 b.cpp:2] other"]
    joined = list(join_continued([(line, b"") for line in log], osquery.starts_text))
    parsed = parse_all(osquery.parse, joined)
    assert [event.fields["message"] for event in parsed.events] == ["first\nsecond", "other"]


def test_glog_writes_no_year() -> None:
    """A status line's day is the newest such day up to tomorrow, in either of glog's formats."""
    now = datetime.now().replace(microsecond=0)
    for age in (0, 1, 200, 363):
        moment = now - timedelta(days=age)
        expected = timestamps.from_ns(int(moment.timestamp()) * 10**9 + 409387000)
        for day in ("%m%d", "%Y%m%d"):
            (found,) = osquery.parse(f"E{moment:{day} %H:%M:%S}.409387 1 a.cpp:1] m".encode())
            assert found.time == expected


@pytest.mark.parametrize("day", ["00010101", "99991231", "20261345", "0230", "9999"])
def test_an_impossible_day_costs_no_status_line(day: str) -> None:
    """A status line with a date that does not exist is kept, with the time of its arrival."""
    (found,) = osquery.parse(f"E{day} 00:00:00.000000 1 a.cpp:1] m".encode())
    assert found.time[:4] in {str(datetime.now().year), timestamps.now()[:4]}


def test_the_first_full_result_set_is_marked() -> None:
    """Counter 0 tells what was there already: it is initial, not added, in events as in batches."""
    assert result({"pid": "1"}, counter=0).action == "initial"
    assert result({"pid": "1"}, counter="0").action == "initial"
    assert result({"pid": "1"}, counter=1).action == "added"
    assert result({"pid": "1"}, counter=0, action="removed").action == "removed"
    batch = {"name": "q", "counter": 0, "diffResults": {"removed": [], "added": [{"a": "1"}, {"a": "2"}]}}
    assert [event.action for event in osquery.parse(encoded(batch))] == ["initial", "initial"]


def test_the_first_results_of_an_evented_table_are_news() -> None:
    """Rows of process_events and file_events are things that happened, whatever the counter says."""
    for name in ("osquery/audit_container/osqueryd.results.log", "osquery/fim/osqueryd.results.log"):
        first = records(name)[0]
        assert first["counter"] == 0
        found = events(name)[0]
        assert found.action == "added"
        assert found.time == timestamps.from_ns(int(first["columns"]["time"]) * 10**9)


def test_what_went_away_or_was_there_already_is_informational() -> None:
    """Severity tells news from the rest."""
    assert result({"a": "1"}).severity is Severity.LOW
    assert result({"a": "1"}, action="removed").severity is Severity.INFORMATIONAL
    assert result({"a": "1"}, counter=0).severity is Severity.INFORMATIONAL


def test_numbers_are_typed_where_the_schema_leaves_no_doubt() -> None:
    """A column that is a number in every table that has it is one; text columns and unknown ones stay text."""
    found = result({"pid": "4915", "local_port": "-1", "path": "123", "my_own_alias": "7", "cmdline": "42"})
    assert found.fields == {"pid": 4915, "local_port": -1, "path": "123", "my_own_alias": "7", "cmdline": "42"}


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("0", 0), ("-3", -3), ("9007199254740993", 9007199254740993), ("18446744073709551615", 2**64 - 1),
        ("007", "007"), ("+1", "+1"), ("-0", "-0"), (" 1", " 1"), ("1 ", "1 "), ("1_000", "1_000"), ("", ""),
        ("0x10", "0x10"), ("1e3", "1e3"), ("9" * 21, "9" * 21), ("\u0661", "\u0661"), ("1\n", "1\n"), ("nan", "nan"),
        ("1.5", 1.5), ("-0.25", -0.25), ("01.5", "01.5"), ("1.", "1."), (".5", ".5"), ("inf", "inf"),
    ],
)  # fmt: skip
def test_only_canonical_numbers_are_typed(written: str, typed: Any) -> None:
    """A string becomes a number only if the number is written that way; nothing that a string says is lost."""
    found = result({"pid": written}).fields["pid"]
    assert (found, type(found)) == (typed, type(typed))


def test_logger_numerics_are_taken_as_they_are() -> None:
    """With logger_numerics osquery types the values itself."""
    types = next(
        event for event in events("osquery/numerics_toplevel/osqueryd.results.log") if event.detection == "types"
    )
    assert types.fields == {
        "big": 9007199254740993, "blob_": "", "d": 1.5, "e": "", "i": 1, "n": "", "neg": -3, "t": "x",
    }  # fmt: skip
    assert result({"pid": "5"}, numerics=True).fields == {"pid": "5"}


def test_decorations_are_kept_wherever_they_stand() -> None:
    """Nested, or at the top level with decorations_top_level: the same decorations, the same host id."""
    nested = events(RESULTS)[0]
    assert set(nested.decorations) == {"host_uuid", "osq_pid", "osq_ver"}
    assert nested.host == Host(name="lab-host-1", id=nested.decorations["host_uuid"])
    top = events("osquery/numerics_toplevel/osqueryd.results.log")[0]
    assert set(top.decorations) == set(nested.decorations)
    assert top.host is not None
    assert top.host.id == top.decorations["host_uuid"]
    assert result({}, decorations={"hostname": "web1"}, hostIdentifier="uuid").host == Host(name="web1")


def test_unicode_tabs_and_null_come_through() -> None:
    r"""A tab arrives as the four characters \x09, NULL as the empty string; both are left as osquery wrote them."""
    found = next(event for event in events(RESULTS) if event.detection == "unicode")
    assert found.fields == {"s": 'žluťoučký " \\ / tab\\x09'}
    assert found.summary == 'unicode (initial): s=žluťoučký " \\ / tab\\x09'
    null = result({"name": "", "pid": ""})
    assert null.fields == {"name": "", "pid": ""}
    assert null.process is None
    assert null.summary == "q (added): (no columns)"


def test_the_process_of_an_audit_row() -> None:
    """process_events gives the process; an unset login user is left out, the working directory loses its quotes."""
    (found,) = (event for event in events("osquery/audit_container/osqueryd.results.log")[:1])
    assert found.process == Process(
        pid=4915, ppid=3849, name="busybox", executable="/bin/busybox", command_line="/bin/sleep 5",
        working_directory="/", uid=0,
    )  # fmt: skip


def test_the_container_of_a_docker_row() -> None:
    """Rows of docker_containers, recorded from a real daemon, name the container; a leading slash is dropped."""
    (row,) = json.loads((DATA / "osquery/docker/docker_containers.json").read_bytes())
    found = result(row, name="pack_docker_containers")
    assert found.container == Container(id=row["id"], name="web1", image="bb", tag="1")


@pytest.mark.parametrize(
    ("image", "repository", "tag", "digest"),
    [
        ("bb:1", "bb", "1", None),
        ("docker.io/library/bb", "docker.io/library/bb", None, None),
        ("localhost:5000/bb", "localhost:5000/bb", None, None),
        ("localhost:5000/bb:1", "localhost:5000/bb", "1", None),
        ("quay.io/a/b@sha256:abc", "quay.io/a/b", None, "sha256:abc"),
        ("quay.io/a/b:2@sha256:abc", "quay.io/a/b", "2", "sha256:abc"),
    ],
)
def test_an_images_name_is_taken_apart(image: str, repository: str, tag: str | None, digest: str | None) -> None:
    """The port of a registry is no tag, and a digest is a digest."""
    found = result({"container_id": "c", "image": image})
    assert found.container == Container(id="c", image=repository, tag=tag, digest=digest)


def test_a_container_is_found_in_a_control_groups_path() -> None:
    """processes.cgroup_path holds the container's id on a host with any engine."""
    identity = "ab" * 32
    found = result({"pid": "1", "cgroup_path": f"/kubepods/besteffort/pod{'0' * 12}/cri-containerd-{identity}.scope"})
    assert found.container == Container(id=identity)
    assert result({"pid": "1", "cgroup_path": "/user.slice"}).container is None


def test_a_socket_row_tells_its_connection() -> None:
    """Local and remote address and port of socket_events and open sockets."""
    found = result({"local_address": "10.0.0.1", "local_port": "40000", "remote_address": "::1", "remote_port": "443"})
    assert found.network == Network(None, "10.0.0.1", 40000, "::1", 443)


def test_a_single_event_keeps_its_record_and_a_batch_row_gets_one_of_its_own() -> None:
    """Raw is the line as it came; of a batch, each event carries its own row in the shape of a single event."""
    for line, found in zip(lines(RESULTS), events(RESULTS), strict=True):
        assert bytes(found.raw) == line
    for batch in records("osquery/batch/osqueryd.results.log"):
        for found, (action, row) in zip(osquery.parse(encoded(batch)), rows(batch), strict=True):
            raw = json.loads(bytes(found.raw))
            assert (raw["columns"], raw["action"], raw["name"]) == (row, action, batch["name"])
            assert "diffResults" not in raw


def test_rows_of_one_batch_have_ids_of_their_own() -> None:
    """Two equal rows in one line are two events."""
    batch = encoded({"name": "q", "snapshot": [{"a": "1"}, {"a": "1"}], "action": "snapshot"})
    first, second = osquery.parse(batch)
    assert first.id != second.id
    assert [event.id for event in osquery.parse(batch)] == [first.id, second.id]


@pytest.mark.parametrize(
    "line",
    [
        {"name": "q", "diffResults": ""}, {"name": "q", "diffResults": {}}, {"name": "q", "snapshot": ""},
        {"name": "q", "snapshot": []}, {"name": "q", "diffResults": {"removed": "", "added": ""}},
        {"name": "q", "diffResults": None},
    ],
)  # fmt: skip
def test_an_empty_batch_is_no_event_and_no_mistake(line: dict[str, Any]) -> None:
    """Osquery writes an empty list of rows as "" at times."""
    assert osquery.parse(encoded(line)) == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "not_osquery"), (b"hello", "not_osquery"), (b"[]", "not_osquery"), (b"{", "not_json"),
        (b"{}", "not_osquery"), (b'{"name":5,"columns":{}}', "not_osquery"), (b'{"name":"q"}', "not_osquery"),
        (b'{"name":"q","columns":[]}', "wrong_shape"), (b'{"name":"q","columns":null}', "wrong_shape"),
        (b'{"name":"q","columns":"x"}', "wrong_shape"), (b'{"name":"q","snapshot":{"a":1}}', "wrong_shape"),
        (b'{"name":"q","snapshot":[1]}', "wrong_shape"), (b'{"name":"q","snapshot":5}', "wrong_shape"),
        (b'{"name":"q","diffResults":[1]}', "wrong_shape"), (b'{"name":"q","diffResults":"x"}', "wrong_shape"),
        (b'{"name":"q","diffResults":{"added":{"a":1}}}', "wrong_shape"),
        (b'{"name":"q","diffResults":{"removed":[null]}}', "wrong_shape"),
        (b'{"name":"q","columns":{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}}", "too_deep"),
    ],
)  # fmt: skip
def test_what_is_no_result_is_rejected_with_its_reason(record: bytes, reason: str) -> None:
    """Wrong types where the rows should be give a reason to count by and a text that says what was expected."""
    with pytest.raises(ParseError) as caught:
        osquery.parse(record)
    assert caught.value.reason == reason
    assert str(caught.value)


WRONG: list[Any] = [None, True, 5, -1, 10**30, 1.5, "", "x", [], [1], {}, {"a": {"b": []}}]
AROUND = ["hostIdentifier", "calendarTime", "unixTime", "epoch", "counter", "numerics", "decorations", "action"]


@pytest.mark.parametrize("place", AROUND)
@pytest.mark.parametrize("value", WRONG, ids=str)
def test_wrong_types_around_the_rows_cost_no_row(place: str, value: Any) -> None:
    """What surrounds a row may be nonsense; the row is an event all the same."""
    assert result({"pid": "5", "name": "x"}, **{place: value}).detection == "q"


@pytest.mark.parametrize("value", WRONG, ids=str)
def test_a_column_may_hold_any_json(value: Any) -> None:
    """A value that osquery never writes is kept as it came, in any column that has a meaning elsewhere."""
    meant = ["pid", "time", "path", "cwd", "image", "container_id", "id", "local_port", "auid", "cgroup_path", "other"]
    found = result(dict.fromkeys(meant, value), name="docker")
    assert found.fields["other"] == value
