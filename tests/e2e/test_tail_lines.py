"""Bad lines, long lines and records of several lines in a log: each costs at most itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from adsbridge.parse import KEPT_BYTES
from adsbridge.sources.osquery_log import OsqueryLog
from support.bridge import PATIENCE
from support.ledger import Ledger, Running
from support.log import Log, append, line
from support.samples import DATA


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 2 * PATIENCE))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_line_ends_of_windows_and_empty_lines(log: Log) -> None:
    """A carriage return before the line end is no part of the line; an empty line says nothing."""

    async def test() -> None:
        append(log.path, line("first").replace(b"\n", b"\r\n") + b"\r\n\n \n" + line("second"))
        async with log.tail():
            await log.ledger.holds("first", "second")
        assert log.ledger.rejected == []

    run(test())


def test_bad_lines_are_kept_beside_their_good_neighbours(log: Log) -> None:
    """NUL bytes, invalid UTF-8, broken and deep JSON: each bad line is a dead letter of its own, with its bytes."""
    bad = [b"\0\0\0", b"\xff\xfe", b'{"rule": "x"', b'{"rule":1}', b'{"rule":"x","output_fields":{"a":' * 10_000]

    async def test() -> None:
        for number, one in enumerate(bad):
            append(log.path, line(number) + one + b"\n")
        log.write("last")
        async with log.tail():
            await log.ledger.holds("0", "1", "2", "3", "4", "last")

    run(test())
    assert [one.payload for one in log.ledger.rejected] == [one[:KEPT_BYTES] for one in bad]
    assert [one.reason for one in log.ledger.rejected] == [
        "not_falco", "not_falco", "not_json", "wrong_shape", "too_deep",
    ]  # fmt: skip


def test_a_line_longer_than_allowed_is_cut_off_and_told(log: Log) -> None:
    """One byte more than max_line makes a dead letter that holds the line's beginning; a byte less does not."""
    longest = line("just right")[:-1]
    limit = len(longest)

    async def test() -> None:
        append(log.path, line("1") + longest + b"\n" + b"y" * (limit + 1) + b"\n" + line("2"))
        async with log.tail(max_line=f"{limit}B"):
            await log.ledger.holds("1", "just right", "2")

    run(test())
    (rejected,) = log.ledger.rejected
    assert (rejected.reason, rejected.payload) == ("too_long", b"y" * limit)
    assert "max_line" in rejected.detail


def test_a_text_alert_with_a_line_end_is_whole_wherever_it_stands(log: Log) -> None:
    """Alerts of two lines are put together across every border that reading in portions has."""
    alert = "20:30:09.846478093: Warning Sensitive file | command=cat /tmp/%07d\n" + "y" * 900 + " container_id=c%d"
    count = 3 * 2**20 // len(alert)

    async def test() -> None:
        append(log.path, b"".join((alert % (number, number)).encode() + b"\n" for number in range(count)))
        log.write("last")
        async with log.tail():
            await log.ledger.holds(*["(Falco text output)"] * count, "last")

    run(test())
    assert log.ledger.rejected == []


def test_osquerys_status_log_is_read_with_its_head(tmp_path: Path) -> None:
    """osqueryd.WARNING starts with four lines about itself; they are no events and no mistakes."""
    ledger = Ledger()
    path = DATA / "osquery/audit/osqueryd.WARNING"

    async def test() -> None:
        async with Running(OsqueryLog("s", OsqueryLog.Config.model_validate({"path": str(path)})), ledger):
            await ledger.holds("osquery status")

    run(test())
    assert ledger.rejected == []
