"""Lines, times and single values; and claims that hold for the parsers on whatever bytes there may be."""

from __future__ import annotations

import datetime
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adsbridge import timestamps
from adsbridge.errors import ParseError
from adsbridge.events import Alert, Event, decode, encode, to_alert
from adsbridge.parse import KEPT_BYTES, bodies, detect, falco, join_continued, osquery
from adsbridge.parse.values import SUMMARY_LENGTH, one_line
from adsbridge.sources._lines import Line, LineSplitter, TooLong
from support.samples import encoded, lines

PARSERS = [falco.parse, osquery.parse, detect.parse]
KEYS = st.sampled_from(
    [
        "rule", "priority", "time", "output", "output_fields", "message", "source", "tags", "hostname",
        "container.id", "proc.pid", "proc.cmdline", "fd.name", "user.loginuid", "k8s.ns.name",
        "name", "columns", "snapshot", "diffResults", "added", "removed", "action", "counter", "unixTime",
        "decorations", "hostIdentifier", "severity", "filename", "line", "numerics", "pid", "path", "id", "image",
    ]
)  # fmt: skip
TEXTS = st.text() | st.sampled_from(
    ["", "<NA>", "host", "docker", "0", "-1", "9" * 30, "2026-11-21T20:27:53.174345369Z", "9999-12-31T23:59:59Z",
     "0001-01-01T00:00:00Z", "20:27:53.1: Warning x | a=b", '{"rule":"inner"}', "{", "\x00", "\u202e", "\ud7ff"]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | TEXTS, inner, max_size=6), max_leaves=20
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=8)


def falco_like(extra: dict[str, Any], rule: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"rule": rule, "output_fields": fields, **{key: extra[key] for key in extra if key not in {"rule"}}}


def osquery_like(extra: dict[str, Any], name: str, shape: str, row: dict[str, Any]) -> dict[str, Any]:
    rows: Any = {"columns": row, "snapshot": [row, row], "diffResults": {"added": [row], "removed": [row]}}[shape]
    return {**extra, "name": name, shape: rows}


RECORDS = (
    OBJECTS
    | st.builds(falco_like, OBJECTS, st.text(), OBJECTS)
    | st.builds(
        osquery_like, OBJECTS, st.text(), st.sampled_from(["columns", "snapshot", "diffResults"]), OBJECTS
    )
)  # fmt: skip
MANGLED = st.builds(
    lambda line, place, junk, cut: line[: place % len(line)] + junk + line[place % len(line) + cut :],
    st.sampled_from(
        lines("falco/k8s-labels-0431/file_output.jsonl")
        + lines("falco/main/grpc_get.jsonl")[:3]
        + lines("falco/textmode/file_output.txt")
        + lines("osquery/batch/osqueryd.results.log")
        + lines("osquery/event_default/osqueryd.WARNING")
    ),
    st.integers(0, 5000),
    st.binary(max_size=8),
    st.integers(0, 8),
)


def check(event: Event) -> None:
    """What holds for every event: it can be kept as one line of JSON, read again, and shown on one line."""
    alert = to_alert(event)
    kept = encode(alert)
    assert b"\n" not in kept
    assert b"\r" not in kept
    json.loads(kept)
    assert encode(decode(kept)) == kept
    assert event.summary.isprintable()
    assert len(event.summary) <= SUMMARY_LENGTH
    assert timestamps.normalise(event.time) == event.time
    assert -(2**63) <= timestamps.to_ns(event.time) < 2**63
    assert re.fullmatch("[0-9a-f]{32}", event.id)


def parse(parser: Callable[..., list[Event]], record: bytes) -> None:
    """Parse a record; nothing but ``ParseError`` may come of it, and every event holds what ``check`` says."""
    try:
        found = parser(record, b"f:1")
    except ParseError:
        return
    for event in found:
        check(event)
    again = parser(record, b"f:1")
    assert [event.id for event in again] == [event.id for event in found]
    assert not {event.id for event in parser(record, b"f:2")} & {event.id for event in found}
    assert len({event.id for event in found}) == len(found)


@pytest.mark.parametrize("parser", PARSERS)
@given(record=st.binary() | MANGLED)
@example(record=b"{" * 10_000)
@example(record=b'{"rule":' * 10_000)
@example(record=b'{"name":"q","columns":{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}}")
@example(record=b'{"rule":"x","output_fields":{"a":' + b"[" * 900 + b"]" * 900 + b"}}")
@example(record=b"\0")
@example(record=b'{"rule":"\0"}')
@example(record=b'{"rule":"\\u0000\\ud800"}')
@example(record=b'{"rule":"\\ud83d\\ude00"}')
@example(record=b"I00010101 00:00:00.000000 1 a:1] x")
@example(record=b'{"rule":"x","time":"2262-04-11T23:47:16.854775807Z"}')
@example(record=b'{"name":"q","columns":{},"unixTime":9223372036}')
@example(record=b'{"name":"q","columns":{},"unixTime":9223372037}')
def test_no_bytes_make_a_parser_fail(parser: Callable[..., list[Event]], record: bytes) -> None:
    """Whatever a line holds, a parser returns good events or says why it cannot."""
    parse(parser, record)


@pytest.mark.parametrize("parser", PARSERS)
@given(record=RECORDS)
def test_no_json_object_makes_a_parser_fail(parser: Callable[..., list[Event]], record: dict[str, Any]) -> None:
    """Any JSON under the keys that mean something gives good events or a reason."""
    parse(parser, json.dumps(record, ensure_ascii=True).encode())
    parse(parser, json.dumps(record, ensure_ascii=False, indent=1).encode(errors="surrogatepass"))


@given(body=st.binary() | st.lists(MANGLED | st.binary(max_size=20), max_size=5).map(b"\n".join))
@example(body=b"[" * 10_000)
@example(body=b"[1, 2]")
@example(body=b'[{"rule":"x"},]')
def test_no_body_makes_the_splitting_into_records_fail(body: bytes) -> None:
    """Whatever an HTTP body holds, it gives records or a reason; and every byte that says something is in one."""
    try:
        records = bodies.falco_records(body)
    except ParseError:
        return
    if body.strip()[:1] != b"[":
        assert b"".join(b"".join(records).split()) == b"".join(body.split())


def test_equal_records_differ_by_their_position() -> None:
    """The id comes from the record and where it stood: the same again is the same, elsewhere it is another."""
    record = encoded({"rule": "x"})
    ids = [falco.parse(record, position)[0].id for position in (b"", b"a:1", b"a:2", b"a:1")]
    assert len(set(ids)) == 3
    assert ids[1] == ids[3]


def test_an_id_never_changes_between_versions() -> None:
    """Destinations remember ids: the same record at the same place keeps the id it ever had."""
    assert falco.parse(b'{"rule":"x"}', b"1:2:3")[0].id == "98bf4b6438f000b5f4827bfac7791b6a"


@given(st.text())
@example("\u202egnp.exe")
@example("a\u2066b\u2069c\u200f\u061c\ufeff\u200b")
@example("\x1b[2J\x07\x9b31m")
@example("line\nend\r\u2028\u2029\x85\x0b\x0c\x1c")
@example("\ud800")
@example("\U000e0041")
@example("x" * 10_000)
def test_one_line_is_one_printable_line(text: str) -> None:
    """No control character, no bidirectional override and no line end gets through; what is harmless stays."""
    shown = one_line(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert len(shown) <= SUMMARY_LENGTH
    if text.isprintable() and len(text) <= SUMMARY_LENGTH:
        assert shown == text


def test_what_is_escaped_can_be_recognised() -> None:
    """An escape says which character it stands for."""
    assert one_line("a\tb\u202ec\x00") == "a\\tb\\u202ec\\x00"
    assert one_line("ünï 日本 👍") == "ünï 日本 👍"
    assert one_line("y" * 500) == "y" * 399 + "…"


NANOSECONDS = st.integers(timestamps.to_ns("1678-01-01T00:00:00.000000000Z"), 2**63 - 1_000_000_000)


@given(NANOSECONDS)
def test_times_go_there_and_back(nanoseconds: int) -> None:
    """Nanoseconds become text and the same nanoseconds again; the text sorts as the time does."""
    text = timestamps.from_ns(nanoseconds)
    assert timestamps.to_ns(text) == nanoseconds
    assert timestamps.normalise(text) == text
    assert timestamps.from_ns(nanoseconds - 1) < text


@given(
    st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.integers(0, 9),
    st.sampled_from("T t".replace(" ", "")) | st.just(" "),
    st.booleans(),
)
def test_every_rfc_3339_time_becomes_the_one_form(
    moment: datetime.datetime, offset: int, digits: int, between: str, colon: bool
) -> None:
    """Any offset, any number of decimals and either separator mean the same moment in UTC."""
    fraction = f"{moment.microsecond:06d}123"[:digits]
    sign, (hours, minutes) = "-" if offset < 0 else "+", divmod(abs(offset), 60)
    zone = f"{sign}{hours:02d}{':' if colon else ''}{minutes:02d}" if offset else "Z"
    text = f"{moment:%Y-%m-%d}{between}{moment:%H:%M:%S}{'.' * bool(fraction)}{fraction}{zone}"
    utc = moment.replace(microsecond=0) - datetime.timedelta(minutes=offset)
    assert timestamps.normalise(text) == f"{utc:%Y-%m-%dT%H:%M:%S}.{fraction.ljust(9, '0')}Z"


@given(st.text() | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", fullmatch=True))
@example("2026-11-21T20:27:53.\u0661\u0662\u0663456789Z")
@example("0000-01-01T00:00:00Z")
@example("9999-12-31T23:59:59.999999999Z")
@example("0001-01-01T00:00:00+23:59")
@example("2026-02-30T00:00:00Z")
@example("2026-11-21T20:27:53.123456789Z\n")
def test_no_text_makes_the_reading_of_times_fail(text: str) -> None:
    """A text is a time that a database can keep, or a ValueError says that it is none."""
    try:
        stamp = timestamps.normalise(text)
    except ValueError:
        return
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", stamp, re.ASCII)
    assert -(2**63) <= timestamps.to_ns(stamp) < 2**63


def split(chunks: list[bytes], limit: int, offset: int) -> list[tuple[bytes | str, int, int]]:
    """The lines that a splitter finds, its last one too."""
    splitter = LineSplitter(limit, offset)
    found: list[Line] = [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.finish()
    assert splitter.offset == offset + sum(map(len, chunks))
    return [(f"too long: {line.start!r}" if isinstance(line, TooLong) else line, *place) for line, *place in found]  # type: ignore[misc]


STREAMS = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"\0", b"\xff", b"x" * 20, b""])).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 400)), st.integers(1, 30), st.integers(0, 2**40))
def test_lines_do_not_depend_on_how_they_arrive(stream: bytes, cuts: list[int], limit: int, offset: int) -> None:
    """Any cutting of a stream into chunks gives the same lines with the same places, those too long included."""
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    chunks = [stream[start:end] for start, end in itertools.pairwise(places)]
    found = split(chunks, limit, offset)
    assert found == split([stream[place : place + 1] for place in range(len(stream))], limit, offset)
    assert found == split([stream], limit, offset)
    pieces = stream.split(b"\n")
    assert len(found) == len(pieces) - (not pieces[-1])
    for line, start, end in found:
        piece = stream[start - offset : end - offset]
        assert piece.count(b"\n") <= 1
        whole = piece.removesuffix(b"\n")
        if len(whole) > limit:
            assert line == f"too long: {whole[: min(limit, KEPT_BYTES)]!r}"
        else:
            assert line == whole.removesuffix(b"\r")


def test_a_line_too_long_is_never_held_whole() -> None:
    """Of a line of a hundred mebibytes the splitter keeps its start only."""
    splitter = LineSplitter(2**20)
    for _ in range(100):
        assert splitter.feed(b"x" * 2**20) == []
        assert len(splitter._rest) <= 2**20
    ((line, start, end),) = splitter.feed(b"\n")
    assert isinstance(line, TooLong)
    assert (len(line.start), start, end) == (KEPT_BYTES, 0, 100 * 2**20 + 1)


@given(st.lists(st.sampled_from([b"A start", b"continued", b'{"json": 1}', b"A other"])))
def test_no_line_is_lost_when_records_are_put_together(found: list[bytes]) -> None:
    """Joined records hold every line, in order, and JSON is joined with nothing."""
    joined = list(join_continued(((line, b"%d" % place) for place, line in enumerate(found)), lambda x: x[:1] == b"A"))
    assert b"\n".join(record for record, _ in joined).split(b"\n") == (found or [b""])
    assert all(b"\n" not in record for record, _ in joined if record[:1] == b"{")
    assert all(found[int(position)] == record.split(b"\n")[0] for record, position in joined)


@given(st.builds(Alert, **{
    name: st.text() for name in ("id", "time", "sensor", "source", "detection", "summary")
}, severity=st.sampled_from(["high"]), fields=st.dictionaries(st.text(), VALUES)))  # fmt: skip
@settings(max_examples=50)
def test_an_alert_is_the_same_after_its_journey_through_json(alert: Alert) -> None:
    """Encoded and decoded again, an alert says what it said."""
    again = decode(encode(alert))
    assert encode(again) == encode(alert)
    assert msgspec.structs.replace(again, raw=alert.raw, severity=alert.severity) == alert
