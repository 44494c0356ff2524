"""What the spool keeps in SQLite: batches, who wants them, checkpoints, dead letters, and the accounts of it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from adsbridge.errors import SpoolError
from adsbridge.store import DeadLetter, Row, Store, Tally


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "spool.db").reading() as opened:
        yield opened


def row(*alerts: str, sinks: tuple[str, ...] = ("soc",), oldest: int = 1) -> Row:
    return Row(sinks, "".join(f"{alert}\n" for alert in alerts).encode(), len(alerts), oldest)


def append(store: Store, *rows: Row) -> None:
    with store.transaction():
        for one in rows:
            store.append(one)


def waiting(store: Store, sink: str = "soc", after: int = 0, alerts: int = 1000) -> list[list[str]]:
    return [[alert.decode() for alert in batch.payloads] for batch in store.waiting(sink, after, alerts)]


def truth(path: Path) -> Tally:
    """What waits, counted by another connection in the plainest way."""
    with sqlite3.connect(path) as database:
        size = database.execute("SELECT coalesce(sum(length(payload)), 0) FROM batches").fetchone()[0]
        alerts = database.execute("SELECT sink, sum(count) FROM pending JOIN batches ON id = batch GROUP BY sink")
        counted = Counter(dict(alerts.fetchall()))
    database.close()
    return Tally(size, counted)


def tally(store: Store) -> Tally:
    with store.transaction():
        return Tally(store.tally.size, +store.tally.alerts)


def fail(store: Store, sink: str = "soc") -> None:
    """A transaction that changes everything and then fails."""

    def work() -> None:
        with store.transaction():
            store.append(row("lost", sinks=(sink,)))
            store.set_checkpoint("source", "x")
            store.drop_sink(sink)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_batches_wait_in_order_for_each_sink_that_wants_them(store: Store) -> None:
    """A sink gets its batches in the order of arrival, and none that it does not want."""
    append(store, row("a", "b", sinks=("soc", "archive")), row("c", sinks=("archive",)), row("d"))
    assert waiting(store) == [["a", "b"], ["d"]]
    assert waiting(store, "archive") == [["a", "b"], ["c"]]
    assert waiting(store, "nobody") == []


def test_waiting_stops_when_there_are_enough_alerts(store: Store) -> None:
    """No more batches are read than hold the alerts asked for, and reading goes on behind a given batch."""
    append(store, row("a", "b"), row("c"), row("d"))
    assert waiting(store, alerts=2) == [["a", "b"]]
    assert waiting(store, alerts=3) == [["a", "b"], ["c"]]
    first = store.waiting("soc", 0, 1)[0].id
    assert waiting(store, after=first) == [["c"], ["d"]]


def test_a_batch_goes_when_its_last_sink_has_it(store: Store) -> None:
    """A batch is kept until every sink that wants it is done with it."""
    append(store, row("a", sinks=("soc", "archive")))
    identity = store.waiting("soc", 0, 1)[0].id
    with store.transaction():
        store.done("soc", [identity])
    assert waiting(store) == []
    assert waiting(store, "archive") == [["a"]]
    assert truth(store.path).size > 0
    with store.transaction():
        store.done("archive", [identity])
    assert truth(store.path).size == 0


def test_done_twice_changes_nothing(store: Store) -> None:
    """A batch that is gone already (dropped meanwhile, noted twice) is not counted a second time."""
    append(store, row("a"), row("b"))
    identity = store.waiting("soc", 0, 1)[0].id
    for _ in range(2):
        with store.transaction():
            store.done("soc", [identity])
    assert tally(store) == truth(store.path)
    assert tally(store).alerts == {"soc": 1}


def test_drop_sink_forgets_one_sink_only(store: Store) -> None:
    """Dropping a sink tells how many alerts go, and leaves other sinks theirs."""
    append(store, row("a", "b", sinks=("soc", "archive")), row("c"))
    with store.transaction():
        assert store.drop_sink("soc") == 3
    assert waiting(store) == []
    assert waiting(store, "archive") == [["a", "b"]]
    assert tally(store) == truth(store.path)


def test_drop_older_counts_by_sink(store: Store) -> None:
    """What was accepted before a moment goes, counted for each sink that still wanted it."""
    append(store, row("a", "b", sinks=("soc", "archive")))
    moment = time.time_ns()
    append(store, row("c"))
    with store.transaction():
        assert store.drop_older(moment) == {"soc": 2, "archive": 2}
    assert waiting(store) == [["c"]]
    assert waiting(store, "archive") == []
    assert tally(store) == truth(store.path)


def test_drop_oldest_frees_enough_and_no_more(store: Store) -> None:
    """The oldest batches go until so many bytes are free, and not one batch more."""
    append(store, *(row(f"alert {number}") for number in range(4)))
    each = truth(store.path).size // 4
    with store.transaction():
        assert store.drop_oldest(each + 1) == {"soc": 2}
    assert waiting(store) == [["alert 2"], ["alert 3"]]
    assert tally(store) == truth(store.path)


def test_what_failed_leaves_no_trace(store: Store) -> None:
    """A transaction that fails changes neither the file nor the accounts."""
    append(store, row("a"))
    before = truth(store.path)
    fail(store)
    assert waiting(store) == [["a"]]
    assert store.checkpoint("source") is None
    assert tally(store) == before == truth(store.path)


def test_what_another_process_changed_is_counted(store: Store) -> None:
    """The accounts follow what `adsbridge queue` does to the file beside a running bridge."""
    append(store, row("a"))
    with Store(store.path).reading() as other:
        append(other, row("b", "c"), row("d", sinks=("archive",)))
    assert tally(store) == truth(store.path)
    assert tally(store).alerts == {"soc": 3, "archive": 1}


def test_checkpoints_are_kept_by_source(store: Store) -> None:
    """The last checkpoint of each source is the one that counts, also after reopening."""
    with store.transaction():
        store.set_checkpoint("one", "1")
        store.set_checkpoint("two", "2")
        store.set_checkpoint("one", "3")
    with Store(store.path).reading() as again:
        assert (again.checkpoint("one"), again.checkpoint("two"), again.checkpoint("three")) == ("3", "2", None)


def test_dead_letters_are_kept_as_they_came(store: Store) -> None:
    """A dead letter keeps every byte of its payload and why it is one."""
    letter = DeadLetter("parse", "falco", "not_json", "broken at byte 7", b"\x00\xff{bad", 3)
    with store.transaction():
        store.bury(letter)
    (kept,) = store.dead_letters()
    assert kept.time > 0
    kept.time = kept.id = 0
    assert kept == letter


def test_a_detail_that_is_no_text_is_kept_readable(store: Store) -> None:
    """A detail that quotes half a surrogate pair, as an odd HTTP reason phrase does, can be kept."""
    with store.transaction():
        store.bury(DeadLetter("delivery", "soc", "refused", "400 \udcff", b"{}"))
    assert store.dead_letters()[0].detail == "400 ?"


def test_the_newest_dead_letters_stay(store: Store) -> None:
    """Trimming keeps the newest, says how many went, and can keep none."""
    with store.transaction():
        for number in range(5):
            store.bury(DeadLetter("parse", "falco", "x", str(number), b""))
        assert store.trim_dead_letters(3, 1000) == 2
    assert [letter.detail for letter in store.dead_letters()] == ["2", "3", "4"]
    with store.transaction():
        assert store.trim_dead_letters(3, 1000) == 0
        assert store.trim_dead_letters(0, 1000) == 3
    assert store.count_dead_letters() == 0


def test_garbage_pushes_out_no_alert(store: Store) -> None:
    """Each stage has its own room, in number and in bytes."""
    with store.transaction():
        store.bury(DeadLetter("delivery", "soc", "refused", "alert", b"{}"))
        for number in range(5):
            store.bury(DeadLetter("parse", "falco", "x", str(number), b"x" * 100))
        assert store.trim_dead_letters(4, 250) == 3
    assert [letter.detail for letter in store.dead_letters()] == ["alert", "3", "4"]


def test_dead_letters_are_chosen_and_forgotten_by_id(store: Store) -> None:
    """Ids choose letters, ids that do not exist are no error, and a forgotten id is never given again."""
    with store.transaction():
        for number in range(3):
            store.bury(DeadLetter("parse", "falco", "x", str(number), b""))
    ids = [letter.id for letter in store.dead_letters()]
    assert [letter.detail for letter in store.dead_letters([ids[1], 99])] == ["1"]
    assert [letter.detail for letter in store.dead_letters(limit=2)] == ["0", "1"]
    with store.transaction():
        assert store.forget_dead_letters([ids[2], 99]) == 1
        store.bury(DeadLetter("parse", "falco", "x", "new", b""))
    assert store.dead_letters()[-1].id > ids[2]


def test_a_batch_that_was_damaged_is_told_apart(store: Store) -> None:
    """Any byte changed inside a kept batch is noticed, and does not hide the batch behind it."""
    append(store, row("a" * 10, "b" * 10), row("c"))
    with sqlite3.connect(store.path) as database:
        whole: bytes = database.execute("SELECT payload FROM batches WHERE id = 1").fetchone()[0]
        for place in range(len(whole)):
            changed = whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :]
            database.execute("UPDATE batches SET payload = ? WHERE id = 1", (changed,))
            database.commit()
            first, second = store.waiting("soc", 0, 1000)
            assert first.damaged, f"byte {place}"
            assert first.payloads == [changed]
            assert second.payloads == [b"c"]
    database.close()


def test_the_file_is_its_owners_only(store: Store) -> None:
    """Alerts hold command lines and names: nobody but the bridge's user may read the spool."""
    append(store, row("a"))
    for path in store.path.parent.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file that a newer version made is not touched, and the error says what to do."""
    path = tmp_path / "spool.db"
    Store(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(SpoolError, match=r"made by a newer adsbridge \(schema 99\); upgrade this one"):
        Store(path)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("a-file/spool.db", "make the file and its folder writable for this user, or set spool.path"),
        ("a-file/deeper/spool.db", "make the file and its folder writable for this user, or set spool.path"),
        ("a-folder", "make the file and its folder writable for this user, or set spool.path"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_with_advice(tmp_path: Path, place: str, told: str) -> None:
    """An impossible place is an error that names the path and what to do."""
    (tmp_path / "a-file").touch()
    (tmp_path / "a-folder").mkdir()
    with pytest.raises(SpoolError, match=told) as caught:
        Store(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)


def test_a_transaction_that_sqlite_refuses_is_our_error(store: Store) -> None:
    """Whatever SQLite cannot do inside a transaction is told as a SpoolError with the path."""
    with pytest.raises(SpoolError, match=r"spool\.db: no such table"), store.transaction():
        store._db.execute("INSERT INTO missing VALUES (1)")


class Operations(RuleBasedStateMachine):
    """Random operations from two processes; the accounts must always be what the file holds."""

    batches: Bundle[int] = Bundle("batches")
    folder: Path

    @initialize()
    def start(self) -> None:
        self.path = self.folder / f"{time.time_ns()}.db"
        self.store, self.other = Store(self.path), Store(self.path)
        self.appended = 0

    @rule(
        target=batches,
        sizes=st.lists(st.integers(1, 50), min_size=1, max_size=3),
        sinks=st.sets(st.sampled_from("abc"), min_size=1),
        here=st.booleans(),
    )
    def append(self, sizes: list[int], sinks: set[str], here: bool) -> Any:
        store = self.store if here else self.other
        with store.transaction():
            for size in sizes:
                store.append(Row(tuple(sorted(sinks)), (os.urandom(20).hex() + "\n").encode() * size, size, 1))
        first = self.appended + 1
        self.appended += len(sizes)
        return multiple(*range(first, self.appended + 1))

    @rule(sink=st.sampled_from("abc"), ids=st.lists(batches, max_size=4))
    def done(self, sink: str, ids: list[int]) -> None:
        with self.store.transaction():
            self.store.done(sink, ids)

    @rule(sink=st.sampled_from("abc"), here=st.booleans())
    def drop_sink(self, sink: str, here: bool) -> None:
        store = self.store if here else self.other
        expected = truth(self.path).alerts[sink]
        with store.transaction():
            assert store.drop_sink(sink) == expected

    @rule(size=st.integers(1, 300))
    def drop_oldest(self, size: int) -> None:
        before = truth(self.path)
        with self.store.transaction():
            dropped = self.store.drop_oldest(size)
        after = truth(self.path)
        assert before.alerts - after.alerts == Counter(dropped)
        assert before.size - after.size >= min(size, before.size)

    @rule()
    def drop_older(self) -> None:
        before = truth(self.path).alerts
        with self.store.transaction():
            assert Counter(self.store.drop_older(time.time_ns() + 1)) == before

    @rule(sink=st.sampled_from("abc"))
    def fail(self, sink: str) -> None:
        fail(self.store, sink)

    @invariant()
    def accounts_are_true(self) -> None:
        for store in (self.store, self.other):
            assert tally(store) == truth(self.path)

    @invariant()
    def depths_are_true(self) -> None:
        with self.store.transaction():
            depths = self.store.depths()
        assert {sink: depth.alerts for sink, depth in depths.items()} == dict(truth(self.path).alerts)
        assert all(depth.oldest is not None for depth in depths.values())

    def teardown(self) -> None:
        self.store.close()
        self.other.close()
        for file in self.folder.glob(f"{self.path.name}*"):
            file.unlink()


def test_the_accounts_stay_true_over_random_operations(tmp_path: Path) -> None:
    """Size and depth equal what the file holds after any operations, of this process and of another."""

    class Here(Operations):
        folder = tmp_path

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
