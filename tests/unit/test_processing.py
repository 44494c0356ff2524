"""Processing: enrichment never holds an alert back, and what is held back on purpose goes nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from adsbridge.components import Settings
from adsbridge.enrich.base import Enricher
from adsbridge.enrich.labels import Labels, LabelSettings
from adsbridge.events import Alert, Event, Severity, decode
from adsbridge.intake import Intake
from adsbridge.metrics import Metrics
from adsbridge.parse import Parsed
from adsbridge.processing import Processing, Routed, SuppressionSettings, rows
from adsbridge.routing import Route, Router
from adsbridge.spool import Spool, SpoolSettings
from adsbridge.store import Store
from adsbridge.strategy import Strategies

BUDGET = 0.2


class Quick(Enricher):
    """Knows everything at once."""

    type = "quick"
    Config = Settings

    async def enrich(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            alert.labels["quick"] = "yes"


class Slow(Enricher):
    """Never answers."""

    type = "slow"
    Config = Settings

    async def enrich(self, alerts: Sequence[Alert]) -> None:
        await asyncio.Event().wait()


class Broken(Enricher):
    """Has a defect."""

    type = "broken"
    Config = Settings

    async def enrich(self, alerts: Sequence[Alert]) -> None:
        raise KeyError("oops")


def event(number: int = 0, action: str | None = None) -> Event:
    return Event(
        id=f"{number:032}", time=f"2026-11-21T20:27:{number:02}.000000001Z", sensor="osquery", source="result",
        detection="q", severity=Severity.LOW, summary="s", action=action,
    )  # fmt: skip


def process(
    enrichers: Sequence[Enricher],
    events: Sequence[Event],
    metrics: Metrics | None = None,
    suppression: SuppressionSettings | None = None,
) -> list[Routed]:
    router = Router([Route.model_validate({"name": "a", "match": {"severity": "high"}, "sinks": ["x"]})], ["y"])
    processing = Processing(Strategies([]), enrichers, suppression or SuppressionSettings(), router, budget=BUDGET)
    return asyncio.run(processing.process(events, metrics or Metrics()))


def test_an_enricher_that_is_late_or_broken_holds_nothing_back() -> None:
    """Each that misses the budget or fails is noted on the alerts and counted; the others' work is kept."""
    metrics = Metrics()
    labels = Labels(LabelSettings(labels={"team": "blue"}))
    enrichers = [labels, Broken(Settings()), Quick(Settings()), Slow(Settings()), Slow(Settings()), Quick(Settings())]
    routed = process(enrichers, [event(0), event(1)], metrics)
    assert [one.decision.sinks for one in routed] == [("y",), ("y",)]
    for one in routed:
        assert one.alert.labels == {"team": "blue", "quick": "yes"}
        assert one.alert.enrichment == {"broken": "failed", "slow": "timeout"}
    assert metrics.total(metrics.enriched) == {
        ("labels", "done"): 2,
        ("broken", "failed"): 2,
        ("quick", "done"): 4,
        ("slow", "timeout"): 4,
    }


def test_labels_are_each_alerts_own() -> None:
    """What an enricher adds to one alert's labels is not on the next one's, nor in the configuration."""
    settings = LabelSettings(labels={"team": "blue"})
    first, second = process([Labels(settings)], [event(0), event(1)])
    first.alert.labels["owner"] = "x"
    assert second.alert.labels == settings.labels == {"team": "blue"}


def test_the_first_full_result_set_goes_nowhere_unless_it_is_asked_for() -> None:
    """An initial row is held back with its reason, by the switch only; it is in no row of the spool."""
    (held,) = process([], [event(action="initial")])
    assert (held.suppressed, held.decision.sinks) == ("initial_results", ())
    assert rows([held]) == []
    (sent,) = process([], [event(action="initial")], suppression=SuppressionSettings(initial_results=False))
    assert (sent.suppressed, sent.decision.sinks) == (None, ("y",))


def test_alerts_for_the_same_sinks_share_a_row() -> None:
    """One row for each set of sinks, with its alerts in order and the time of the oldest."""
    routed = process([], [event(3), event(1), event(2)])
    (row,) = rows(routed)
    assert (row.sinks, row.count) == (("y",), 3)
    assert [decode(line).id for line in row.lines.splitlines()] == [one.alert.id for one in routed]
    assert row.oldest % 10**9 == 1
    assert row.oldest // 10**9 % 60 == 1


def test_an_event_that_cannot_be_processed_costs_only_itself(tmp_path: Path) -> None:
    """A defect of ours that one event meets makes it a dead letter; its neighbours are kept, the source goes on."""

    class Picky(Processing):
        async def process(self, events: Sequence[Event], metrics: Metrics) -> list[Routed]:
            if any(event.detection == "poison" for event in events):
                raise KeyError("oops")
            return await super().process(events, metrics)

    async def hand_in() -> tuple[int, list[str]]:
        metrics = Metrics()
        spool = Spool.open(SpoolSettings(path=tmp_path / "spool.db"), metrics)
        processing = Picky(Strategies([]), [], SuppressionSettings(), Router([], ["y"]))
        intake = Intake(processing, spool, metrics)
        running = asyncio.create_task(intake.run())
        events = [event(number) for number in range(20)]
        events[7].detection = "poison"
        await (await intake.submit("file", Parsed(events=events, received=20)))
        await intake.close()
        await running
        await spool.close()
        store = Store(tmp_path / "spool.db")
        kept = sum(len(batch.payloads) for batch in store.waiting("y", 0, 100))
        letters = [letter.reason for letter in store.dead_letters()]
        store.close()
        return kept, letters

    assert asyncio.run(hand_in()) == (19, ["defect"])
