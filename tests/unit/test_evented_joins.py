"""A query that joins an evented table with others reports what happened, from its first result on."""

import msgspec

from adsbridge.parse import osquery

_ROW = {
    "pid": "4597", "path": "/tmp/.x/nmap", "cmdline": "./nmap -sT 127.0.0.0/24", "cwd": "/", "uid": "0", "euid": "0",
    "auid": "4294967295", "parent": "4494", "time": "1795302222", "parent_name": "sh", "parent_cmdline": "sh",
    "cgroup_path": "/", "pid_namespace": "4026532180", "in_container": "yes",
}  # fmt: skip


def _first_result(columns: dict[str, str]) -> bytes:
    line = {"name": "q", "hostIdentifier": "node-1", "unixTime": 1795302240, "epoch": 0, "counter": 0}
    return msgspec.json.encode({**line, "numerics": False, "columns": columns, "action": "added"})


def test_joined_events_are_news_at_once() -> None:
    (event,) = osquery.parse(_first_result(_ROW))

    assert event.action == "added"
    assert event.time == "2026-11-21T23:03:42.000000000Z"
    assert event.summary.startswith("q (added): cmdline=./nmap -sT 127.0.0.0/24 in_container=yes")
    assert event.process is not None
    assert event.process.parent == "sh"


def test_a_list_of_what_is_there_is_not() -> None:
    columns = {key: value for key, value in _ROW.items() if key not in {"auid", "time"}}

    (event,) = osquery.parse(_first_result(columns))

    assert event.action == "initial"
