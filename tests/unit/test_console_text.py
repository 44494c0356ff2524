"""Alerts as a person in a terminal sees them."""

import io

import pytest
from rich.console import Console

from adsbridge.events import Alert, Container, Host, Severity, StrategyRef
from adsbridge.sinks.console import render

_STEPS = ["Read the command line and its parent, and note everything about the container.", "Ask the owner."]


def _alert(**changes: object) -> Alert:
    known = {
        "id": "0" * 32,
        "time": "2026-11-21T23:03:48.391151678Z",
        "sensor": "falco",
        "source": "syscall",
        "detection": "Network Scan Started in Container",
        "severity": Severity.HIGH,
        "summary": "Network scan started in container: kworkerd -sS -PR --top-ports 100 --randomize-hosts 127.0.0.0/24",
        "host": Host(name="node-1"),
        "container": Container(id="47443e6dd2848d7aeac2a7f1d1e609eaf9ba5472a8a6425b2c74b3e7eddda61a"),
        "strategy": StrategyRef("ADS-0001", "A process scans the network", Severity.HIGH, _STEPS, "strategies/x.md"),
    }
    return Alert(**{**known, **changes})  # type: ignore[arg-type]


def _printed(alert: Alert, width: int, *, terminal: bool) -> list[str]:
    stream = io.StringIO()
    console = Console(
        file=stream, soft_wrap=True, highlight=False, width=width, force_terminal=terminal, color_system=None
    )
    console.print(render(alert, console))
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_long_lines_go_on_under_their_beginning(width: int) -> None:
    lines = _printed(_alert(), width, terminal=True)

    assert max(map(len, lines)) <= width
    assert all(line[:11].strip() == "" or line[10] == " " for line in lines)
    told = "".join(line.strip() for line in lines).replace(" ", "")
    for expected in ("23:03:48.391Z", "HIGH", "kworkerd -sS", "container 47443e6dd284, host node-1"):
        assert expected.replace(" ", "") in told


def test_elsewhere_each_line_stays_whole() -> None:
    lines = _printed(_alert(), 40, terminal=False)

    assert [line.split()[0] for line in lines] == ["2026-11-21", "what", "where", "by", "first", "more"]
    assert lines[5].endswith("1 further step: strategies/x.md")


def test_cloud_alerts_name_the_account() -> None:
    fields = {"ct.user.accountid": "111122223333", "ct.region": "eu-central-1"}

    lines = _printed(_alert(container=None, fields=fields), 200, terminal=False)

    assert lines[2].strip() == "where  AWS account 111122223333, region eu-central-1, host node-1"
