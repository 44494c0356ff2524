"""Recordings: whatever a file holds, each record in it is found once, and no file makes reading fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsbridge import recordings

FALCO = {"rule": "A", "priority": "Error", "time": "2026-11-21T20:27:53.1Z", "output": "x"}
ROW = {"name": "q", "hostIdentifier": "h", "unixTime": 1, "counter": 1, "columns": {"a": "1"}, "action": "added"}
STATUS = {"s": 2, "f": "a.cpp", "i": 3, "m": "careful", "h": "node", "c": "Sat Nov 21 20:57:25 2026 UTC", "u": 1}


def detections(path: Path, text: str | bytes) -> list[str]:
    """The detections of the events in a file that holds the text."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [event.detection for event in recordings.parse(path).events]


CAPTURES: list[tuple[Any, list[str]]] = [
    ({"body": {"data": [FALCO, ROW]}}, ["A", "q"]),
    ({"body": json.dumps({"data": [json.dumps(ROW), json.dumps(FALCO)]})}, ["q", "A"]),
    ([FALCO, [ROW, {"deeper": [FALCO]}]], ["A", "q", "A"]),
    ({"log": json.dumps([STATUS, STATUS])}, ["osquery status", "osquery status"]),
    ({"nothing": [1, None, "{", "[1, 2"]}, []),
]


@pytest.mark.parametrize(("capture", "expected"), CAPTURES)
def test_records_inside_a_capture_are_found(tmp_path: Path, capture: Any, expected: list[str]) -> None:
    """At any depth, in strings of JSON too, in one line as over many; osquery's short status names are known."""
    assert detections(tmp_path / "pretty", json.dumps(capture, indent=1)) == expected
    assert detections(tmp_path / "line", json.dumps(capture)) == expected


def test_lines_and_captures_may_be_mixed(tmp_path: Path) -> None:
    """Each line is looked at for itself; blank lines and CRLF do no harm; a missing last line end neither."""
    lines = [json.dumps(FALCO), "", json.dumps({"body": [ROW]}), "20:27:53.174345369: Error some text", "  more of it"]
    assert detections(tmp_path / "a", "\r\n".join(lines)) == ["A", "q", "(Falco text output)"]


def test_the_same_record_twice_is_two_events(tmp_path: Path) -> None:
    """Records are told apart by their place, and are the same each time the file is read."""
    path = tmp_path / "a"
    path.write_text(f"{json.dumps(FALCO)}\n{json.dumps([FALCO, FALCO])}\n")
    ids = [event.id for event in recordings.parse(path).events]
    assert len(set(ids)) == 3
    assert ids == [event.id for event in recordings.parse(path).events]


PIECES = st.sampled_from(
    [json.dumps(FALCO), json.dumps(ROW), json.dumps(STATUS), json.dumps(json.dumps(ROW)), "{", "}", "[", "]", ",", '"',
     "\n", "\r\n", " ", "\\", '"a":', "null", "I1121 20:57:25.000001 1 a.cpp:3] x", "20:27:53.1: Error x", "\x00", "é"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(), st.lists(PIECES, max_size=30).map(lambda some: "".join(some).encode())))
def test_no_file_makes_reading_fail(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Each record is an event or a rejection with its reason; nothing raises, and reading again gives the same."""
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_bytes(content)
    parsed = recordings.parse(path)
    assert all(one.reason for one in parsed.rejected)
    assert [event.id for event in parsed.events] == [event.id for event in recordings.parse(path).events]
