"""What a running Falco 0.43.1 wrote: every combination of its JSON switches, and its standard output to the end."""

from itertools import product
from pathlib import Path

import pytest

from adsbridge import recordings
from adsbridge.events import Event, Severity
from adsbridge.parse import falco, parse_all

LIVE = Path(__file__).parents[1] / "data/falco/live"
# One alert of a container and one of CloudTrail for each combination, in this order.
COMBINATIONS = list(product([True, False], repeat=4))
LINES = (LIVE / "switches.jsonl").read_bytes().splitlines()


@pytest.mark.parametrize("place", range(len(COMBINATIONS)))
def test_every_combination_of_switches_is_read(place: int) -> None:
    output, fields, tags, message = COMBINATIONS[place]
    of_container, of_cloud = (event for line in LINES[2 * place : 2 * place + 2] for event in falco.parse(line))

    assert (of_container.detection, of_container.severity) == ("Local test file touched", Severity.LOW)
    assert (of_cloud.detection, of_cloud.source) == ("AWS Firewall Opened to the World", "aws_cloudtrail")
    assert of_cloud.time == "2026-11-21T23:07:02.000000000Z"
    assert of_cloud.host is not None
    assert of_cloud.host.name == "audit-1"
    assert bool(of_container.tags) == tags
    assert bool(of_container.fields) == fields
    if fields or output or message:  # else Falco tells it nowhere
        assert of_container.container is not None
        assert of_container.container.name == "checkout"
        assert of_container.container.image == "registry.example/shop/checkout"
        assert of_container.kubernetes is not None
        assert of_container.kubernetes.namespace == "shop"
    if fields:
        assert "cat /tmp/falco-canary" in of_container.summary
    if output or message:
        assert "event=AuthorizeSecurityGroupIngress" in of_cloud.summary


@pytest.mark.parametrize("name", ["stdout.jsonl", "stdout.txt"])
def test_closing_statistics_are_no_alert_and_no_dead_letter(name: str) -> None:
    parsed = recordings.parse(LIVE / name)

    assert [event.time[:16] for event in parsed.events] == ["2026-11-21T23:24"] * 2
    assert parsed.rejected == []
    assert not any("Events detected" in event.summary for event in parsed.events)
    assert {_image(event) for event in parsed.events} == {"registry.example/shop/checkout"}


def _image(event: Event) -> str | None:
    return event.container.image if event.container else None


def test_a_line_that_only_resembles_the_statistics_is_kept() -> None:
    line = b"Events detected: 2 container_id=47443e6dd284"

    parsed = parse_all(falco.parse, [(line, b"")])

    assert [rejected.payload for rejected in parsed.rejected] == [line]
