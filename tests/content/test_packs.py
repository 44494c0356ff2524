"""The osquery packs are sound: headers, SQL, generated files, and what the queries find."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsbridge import packs

ROOT = Path(__file__).parents[2]
QUERIES = packs.load_packs(ROOT / "packs")
SCHEMA = packs.load_schema()
HEADER = """\
-- description: What a row means
--   and some more.
-- strategy: ADS-0001
-- interval: 60
-- platform: linux
-- severity: low
-- false_positives: None known.
"""


def write(root: Path, text: str, name: str = "one", pack: str = "some") -> Path:
    path = root / pack / f"{name}.sql"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load_one(root: Path, text: str) -> packs.Query:
    write(root, text)
    (query,) = packs.load_packs(root)
    return query


def test_confs_are_in_step_with_the_sql() -> None:
    """Each pack's checked-in ``.conf`` is what its SQL files make, and no other ``.conf`` lies about."""
    rendered = packs.render_all(QUERIES)
    on_disk = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "packs").glob("*.conf")}
    assert on_disk == rendered


def test_every_query_prepares_against_osquerys_tables() -> None:
    """All tables, columns and functions exist in osquery, and event tables are read as events."""
    assert packs.check(QUERIES, SCHEMA) == []


def test_schema_is_of_the_version_that_the_packs_are_written_for() -> None:
    """The packaged schema names its version, and knows hidden columns and event tables."""
    assert SCHEMA.version == "5.23.1"
    assert SCHEMA.tables["process_events"].evented
    assert not SCHEMA.tables["processes"].evented
    assert SCHEMA.tables["process_events"].columns["eid"] == "TEXT"
    kinds = {kind for table in SCHEMA.tables.values() for kind in table.columns.values()}
    assert kinds <= {"TEXT", "INTEGER", "BIGINT", "UNSIGNED BIGINT", "DOUBLE", "BLOB"}


def test_a_query_is_read_with_its_header(tmp_path: Path) -> None:
    """Continuation lines join, defaults hold, the SQL starts below the header, and tables are found."""
    query = load_one(tmp_path, HEADER + "\nSELECT p.pid FROM processes AS p JOIN users u ON u.uid = p.uid;\n")
    assert (query.name, query.pack, query.line) == ("one", "some", 9)
    assert query.description == "What a row means and some more."
    assert (query.interval, query.removed, query.snapshot) == (60, True, False)
    assert query.tables == ("processes", "users")


def test_tables_are_those_that_are_read(tmp_path: Path) -> None:
    """Names that WITH defines, quoted text and comments are no tables."""
    sql = """\
WITH a AS (SELECT 1 FROM processes), b (x) AS (SELECT 2 FROM users) -- FROM nowhere
SELECT ' FROM text', /* JOIN nothing */ 1 FROM a JOIN b ON 1 LEFT JOIN Listening_Ports AS l ON 1
WHERE EXISTS (SELECT 1 FROM time)
"""
    query = load_one(tmp_path, HEADER + sql)
    assert query.tables == ("listening_ports", "processes", "time", "users")
    assert packs.check([query], SCHEMA) == []


def test_sql_goes_on_one_line_with_quoted_text_untouched(tmp_path: Path) -> None:
    """Comments and line breaks vanish; what is inside quotes stays, dashes and spaces included."""
    query = load_one(tmp_path, HEADER + "SELECT '--  it''s',\n  \"a  b\" -- no\n  /* no */ FROM  time\n;\n")
    assert packs.one_line(query.sql) == "SELECT '--  it''s', \"a  b\" FROM time"


def test_rendered_pack_is_stable_json(tmp_path: Path) -> None:
    """Queries are sorted, options appear only where they differ from osquery's defaults."""
    write(tmp_path, HEADER + "-- removed: false\nSELECT 1;\n", "b_query")
    write(tmp_path, HEADER + "-- snapshot: true\nSELECT 2\n", "a_query")
    text = packs.render(packs.load_packs(tmp_path))
    assert text.endswith("}\n")
    assert text.startswith('{\n  "platform": "linux"')
    pack = json.loads(text)
    assert list(pack["queries"]) == ["a_query", "b_query"]
    assert pack["queries"]["a_query"] == {
        "query": "SELECT 2;",
        "interval": 60,
        "description": "What a row means and some more.",
        "platform": "linux",
        "snapshot": True,
    }
    assert pack["queries"]["b_query"]["removed"] is False


def test_render_takes_one_pack_only(tmp_path: Path) -> None:
    """Queries of two packs, or none, are refused; render_all sorts them out."""
    write(tmp_path, HEADER + "SELECT 1", "one", "first")
    write(tmp_path, HEADER + "SELECT 1", "two", "second")
    queries = packs.load_packs(tmp_path)
    for wrong in (queries, []):
        with pytest.raises(ValueError, match="exactly one pack"):
            packs.render(wrong)
    assert list(packs.render_all(queries)) == ["first", "second"]


BAD = [
    (HEADER.replace("60", "soon") + "SELECT 1", 4, "interval: expected seconds"),
    (HEADER.replace("60", "0") + "SELECT 1", 4, "interval: expected seconds"),
    (HEADER.replace("60", "604801") + "SELECT 1", 4, "interval: expected seconds"),
    (HEADER.replace("ADS-0001", "ADS-1") + "SELECT 1", 3, "strategy: expected a strategy's id"),
    (HEADER.replace("linux", "plan9") + "SELECT 1", 5, "platform: expected one of linux"),
    (HEADER.replace(": low", ": bad") + "SELECT 1", 6, "severity: expected one of critical"),
    (HEADER.replace("None known.", "") + "SELECT 1", 7, "false_positives: expected a sentence"),
    (HEADER + "-- removed: no\nSELECT 1", 8, "removed: expected true or false"),
    (HEADER + "-- colour: red\nSELECT 1", 8, "unknown key 'colour'"),
    (HEADER + "-- interval: 30\nSELECT 1", 8, "interval is given twice"),
    (HEADER + "--no space\nSELECT 1", 8, "expected '-- key: value'"),
    (HEADER.replace("-- interval: 60\n", "") + "SELECT 1", 1, "'-- interval: "),
    ("SELECT 1\n", 1, "'-- description: "),
    (HEADER, 8, "there is none"),
    (HEADER + "DELETE FROM time", 8, "starts with SELECT or WITH"),
    (HEADER + "SELECT 1;\n-- fine\nSELECT 2;", 10, "expected one statement"),
    (HEADER + "SELECT 1,\n  'open", 9, "expected a closing quote"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD)
def test_mistakes_are_reported_with_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    """Each kind of mistake in a query file is a PackError that says where and what was expected."""
    path = write(tmp_path, text)
    with pytest.raises(packs.PackError) as caught:
        packs.load_packs(tmp_path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


def test_files_that_are_not_text_or_badly_named_are_mistakes(tmp_path: Path) -> None:
    """A name that osquery's loggers would garble and bytes that are no UTF-8 are reported, not raised raw."""
    path = write(tmp_path, HEADER + "SELECT 1", "Bad-Name")
    with pytest.raises(packs.PackError, match=r"Bad-Name\.sql:1: expected a file name"):
        packs.load_packs(tmp_path)
    path.unlink()
    write(tmp_path, "").write_bytes(b"-- description: \xff\n")
    with pytest.raises(packs.PackError, match=r"one\.sql:1: cannot read"):
        packs.load_packs(tmp_path)


def test_names_are_unique_over_all_packs(tmp_path: Path) -> None:
    """Two packs cannot have a query of the same name; the message names both files."""
    first = write(tmp_path, HEADER + "SELECT 1", "one", "first")
    second = write(tmp_path, HEADER + "SELECT 1", "one", "second")
    with pytest.raises(packs.PackError, match=re.escape(f"{second}:1: ") + ".*" + re.escape(str(first))):
        packs.load_packs(tmp_path)


BROKEN = [
    ("SELECT pid,\n  colour\nFROM processes", 9, "no such column: colour"),
    ("SELECT 1\nFROM\n  nowhere", 10, "no such table: nowhere"),
    ("SELECT 1,\n  colour(1)", 9, "no such function: colour"),
    ("SELECT 1\nFORM processes WHERE", 9, "syntax error"),
]


@pytest.mark.parametrize(("sql", "line", "message"), BROKEN)
def test_check_reports_what_osquery_would_not(tmp_path: Path, sql: str, line: int, message: str) -> None:
    """A query that osquery cannot run is reported with file, line and SQLite's message."""
    query = load_one(tmp_path, HEADER + sql)
    (mistake,) = packs.check([query], SCHEMA)
    assert mistake.startswith(f"{query.path}:{line}: ")
    assert message in mistake


def test_check_knows_hidden_columns_and_osquerys_functions(tmp_path: Path) -> None:
    """Hidden columns can be selected by name, and functions that osquery adds are no mistake."""
    sql = "SELECT eid, regex_match(path, 'a', 0), in_cidr_block('10.0.0.0/8', '10.1.1.1') FROM process_events"
    assert packs.check([load_one(tmp_path, HEADER + "-- removed: false\n" + sql)], SCHEMA) == []


@pytest.mark.parametrize("extra", ["", "-- snapshot: true\n"])
def test_check_wants_event_tables_read_as_events(tmp_path: Path, extra: str) -> None:
    """Events do not disappear and are no state: such a query needs ``removed: false`` and no snapshot."""
    (mistake,) = packs.check([load_one(tmp_path, HEADER + extra + "SELECT pid FROM process_events")], SCHEMA)
    assert "process_events holds events" in mistake


# What the queries find: a host (pids 1-99), a container with a PID namespace of its own (100-199), and one
# that shares the host's and is told by its cgroup namespace (200 and more).

HOST, OTHER = "4026531836", "4026532180"


def search_regex(text: str | None, pattern: str, _index: int) -> str | None:
    found = re.search(pattern, text or "")
    return found[0] if found else None


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    for name in (
        "processes",
        "process_namespaces",
        "process_open_files",
        "process_open_sockets",
        "process_events",
    ):
        columns = ", ".join(f'"{column}" {kind}' for column, kind in SCHEMA.tables[name].columns.items())
        connection.execute(f"CREATE TABLE {name} ({columns})")
    connection.create_function("regex_match", 3, search_regex)
    add_process(connection, 1, "systemd")
    add_process(connection, 100, "sh")
    add_process(connection, 200, "agent")
    yield connection
    connection.close()


def add(connection: sqlite3.Connection, table: str, **values: object) -> None:
    columns = ", ".join(values)
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values()))


def add_process(connection: sqlite3.Connection, pid: int, name: str, cmdline: str = "", state: str = "S") -> None:
    add(
        connection,
        "processes",
        pid=pid,
        name=name,
        cmdline=cmdline or name,
        state=state,
        parent=1,
        cgroup_path="/",
    )
    inside = 100 <= pid < 200
    add(
        connection,
        "process_namespaces",
        pid=pid,
        pid_namespace=OTHER if inside else HOST,
        cgroup_namespace=OTHER if pid >= 100 else HOST,
    )


def run(connection: sqlite3.Connection, name: str) -> list[int]:
    """The pids that the query reports."""
    (query,) = [query for query in QUERIES if query.name == name]
    cursor = connection.execute(packs.one_line(query.sql))
    place = [column[0] for column in cursor.description].index("pid")
    return sorted(row[place] for row in cursor)


def test_running_scanners_are_found_in_containers_only(database: sqlite3.Connection) -> None:
    """By name, or by arguments whatever the name; not on the host, and not ordinary programs."""
    add_process(database, 10, "nmap", "nmap -sS 10.0.0.0/24")
    add_process(database, 101, "nmap", "nmap host")
    add_process(database, 102, "backup", "backup -p 22,80 10.0.0.0/24")
    add_process(database, 103, "backup", "backup -Pn 10.0.0.1-254")
    add_process(database, 104, "curl", "curl -sS http://10.0.0.5/8")
    add_process(database, 105, "iptables", "iptables -s 10.0.0.0/8 -p tcp --dport 22")
    add_process(database, 201, "masscan")
    assert run(database, "container_network_scanner_running") == [101, 102, 103, 201]


def test_raw_and_packet_sockets_are_found_in_containers_only(database: sqlite3.Connection) -> None:
    """Raw IP (protocol 255) and packet (family 17) sockets; not ping's, not streams, not the host's."""
    add_process(database, 101, "ping")
    add_process(database, 102, "scan")
    for pid, family, protocol in [
        (1, 17, 3),
        (100, 2, 255),
        (101, 2, 255),
        (102, 17, 3),
        (200, 10, 255),
        (200, 2, 6),
    ]:
        add(database, "process_open_sockets", pid=pid, family=family, protocol=protocol, fd=3)
    assert run(database, "container_raw_or_packet_socket") == [100, 102, 200]


def test_fan_out_needs_many_unanswered_connections(database: sqlite3.Connection) -> None:
    """Twenty different targets in SYN_SENT are a row; one target thirty times, or answered, is not."""
    for pid, state, targets in [(1, "SYN_SENT", 30), (100, "SYN_SENT", 20), (200, "ESTABLISHED", 30)]:
        for n in range(targets):
            address = f"192.0.2.{n}"
            add(
                database,
                "process_open_sockets",
                pid=pid,
                family=2,
                protocol=6,
                state=state,
                remote_address=address,
                remote_port=22,
            )
    add_process(database, 101, "stuck")
    for n in range(30):
        add(
            database,
            "process_open_sockets",
            pid=101,
            family=2,
            protocol=6,
            state="SYN_SENT",
            remote_address="192.0.2.1",
            remote_port=443,
            local_port=n,
        )
    assert run(database, "container_connection_fan_out") == [100]


def test_open_memory_files_are_found(database: sqlite3.Connection) -> None:
    """Another process's memory file counts, through any mount point; one's own and other files do not."""
    for pid, path in [
        (1, "/proc/2/mem"),
        (100, "/proc/7/task/8/mem"),
        (200, "/host/proc/1/mem"),
        (200, "/proc/200/mem"),
        (100, "/proc/meminfo"),
        (100, "/data/mem"),
    ]:
        add(database, "process_open_files", pid=pid, fd=3, path=path)
    assert run(database, "container_process_memory_file_open") == [100, 200]


def test_trace_stop_is_told_from_job_control(database: sqlite3.Connection) -> None:
    """State t (tracing) is a row, T (stopped by a signal) is not, and neither is the host's."""
    add_process(database, 10, "a", state="t")
    add_process(database, 101, "b", state="t")
    add_process(database, 102, "c", state="T")
    assert run(database, "container_process_in_trace_stop") == [101]


def test_scanner_execs_are_found_with_what_is_left_of_their_process(database: sqlite3.Connection) -> None:
    """By a parent in a container, with nothing left to ask, or carried in by docker; not on the host."""
    events = [
        (300, 100, "/usr/bin/nmap", "nmap -sn 10.0.0.0/24"),
        (301, 999, "/usr/bin/nmap", "nmap -sn 10.0.0.0/24"),
        (302, 1, "/usr/bin/nmap", "nmap -sn 10.0.0.0/24"),
        (303, 1, "/usr/bin/docker", "docker exec web nmap -sn 10.0.0.0/24"),
        (304, 1, "/usr/bin/docker", "docker ps --filter name=nmapper"),
        (305, 100, "/bin/ls", "ls /usr/share/nmap"),
        (306, 100, "/tmp/.x", "/tmp/.x -p- 10.0.0.0/16"),
    ]
    for pid, parent, path, cmdline in events:
        add(database, "process_events", pid=pid, parent=parent, path=path, cmdline=cmdline, syscall="execve")
    add(database, "process_events", pid=307, parent=100, path="/usr/bin/nmap", cmdline="nmap", syscall="clone")
    assert run(database, "container_network_scanner_exec") == [300, 301, 303, 306]


def test_memory_tools_are_found_when_started(database: sqlite3.Connection) -> None:
    """Debuggers by name, memory files by path, and what container command lines carry; not the host's own."""
    events = [
        (300, 100, "/usr/bin/gdb", "gdb -p 7"),
        (301, 100, "/bin/dd", "dd if=/proc/7/mem of=/dev/null"),
        (302, 100, "/bin/cat", "cat /proc/7/mem"),
        (303, 100, "/bin/cat", "cat /proc/meminfo"),
        (304, 1, "/usr/bin/gdb", "gdb -p 7"),
        (305, 1, "/usr/bin/kubectl", "kubectl exec web -- gdb -p 7"),
        (306, 1, "/usr/bin/kubectl", "kubectl get pods"),
    ]
    for pid, parent, path, cmdline in events:
        add(database, "process_events", pid=pid, parent=parent, path=path, cmdline=cmdline, syscall="execve")
    assert run(database, "container_memory_tool_exec") == [300, 301, 302, 305]
