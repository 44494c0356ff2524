"""``adsbridge demo``: it delivers all that it is fed and says so, and says so when it does not."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from adsbridge.events import Alert, decode
from support.command import DATA, adsbridge


@pytest.fixture(scope="module")
def shown() -> subprocess.CompletedProcess[str]:
    """The demonstration as a person sees it."""
    return adsbridge("demo")


def test_the_demonstration_ends_by_itself_and_delivers_everything(shown: subprocess.CompletedProcess[str]) -> None:
    """Alerts as they arrive, then a summary in which what was delivered is what was fed, and exit status 0."""
    ended = shown
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    summary = {line.split()[0]: line for line in lines[lines.index("all that was fed was delivered") - 8 :] if line}
    received = int(summary["received"].split()[1])
    assert received == sum(int(part.split()[0]) for part in summary["received"].partition(":")[2].split(","))
    assert {"falco_file", "falco_http", "osquery_log"} <= set(summary["received"].replace(",", "").split())
    words = summary["delivered"].split()
    assert words[1] == words[3]
    assert all(strategy in summary["tagged"] for strategy in ("ADS-0001", "ADS-0002", "ADS-0003"))
    assert summary["dropped"].split() == ["dropped", "none"]
    assert "missing" not in ended.stdout.lower()


def test_an_alert_says_what_happened_where_and_what_to_do(shown: subprocess.CompletedProcess[str]) -> None:
    """A claimed alert shows severity, strategy, what, where, the detection, the first step and where to read on."""
    block = next(block for block in shown.stdout.split("\n2026-") if "ADS-0001" in block.partition("\n")[0])
    head, *rest = block.splitlines()
    assert "  HIGH  ADS-0001 A process in a container scans the network" in head
    found = {line.split()[0]: line.split(maxsplit=1)[1] for line in rest if line[:4] == "    " and line[4] != " "}
    assert list(found) == ["what", "where", "by", "first", "more"]
    assert "container " in found["where"]
    assert "strategies/ADS-0001" in found["more"]


def test_json_prints_alerts_and_nothing_else() -> None:
    """With --json each line of standard output is one alert, and the summary goes to standard error."""
    ended = adsbridge("demo", "--json")
    alerts = [decode(line.encode()) for line in ended.stdout.splitlines()]
    assert ended.returncode == 0
    assert len(alerts) > 20
    assert len({alert.id for alert in alerts}) == len(alerts)
    assert f"delivered  {len(alerts)} of {len(alerts)} alerts" in ended.stderr
    assert {alert.sensor for alert in alerts} == {"falco", "osquery"}


def test_everything_that_was_ever_recorded_goes_through() -> None:
    """All files of recordings at once, with what is no record among them: nothing is missing, nothing comes unfed."""
    files = sorted(path for path in DATA.rglob("*") if path.is_file())
    ended = adsbridge("demo", "--json", *files)
    assert ended.returncode == 0, ended.stderr
    assert "all that was fed was delivered" in ended.stderr
    assert "MISSING" not in ended.stderr
    demonstrated = Counter(described(decode(line.encode())) for line in ended.stdout.splitlines())
    replayed = Counter(described(decode(line.encode())) for line in adsbridge("replay", *files).stdout.splitlines())
    assert demonstrated == replayed
    assert demonstrated.total() > 1500


def described(alert: Alert) -> tuple[str, str, str, str]:
    """What two ways of an alert have in common; a text line has no date of its own."""
    return (alert.time if alert.detection[0] != "(" else "", alert.sensor, alert.detection, alert.summary.strip())


def recording(path: Path, *commands: str) -> Path:
    """Alerts of Falco's with these command lines."""
    alerts = [
        {
            "rule": "Some Rule", "priority": "Error", "output": f"something | cmd={command}",
            "time": f"2026-11-21T20:27:5{number}.1Z", "output_fields": {"proc.cmdline": command},
        }
        for number, command in enumerate(commands)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(alert) + "\n" for alert in alerts))
    return path


def test_the_same_alert_twice_over_http_is_one(tmp_path: Path) -> None:
    """Falco's HTTP output has no position: what comes word for word again has the same id, and is no loss."""
    ended = adsbridge("demo", recording(tmp_path / "a", *["x"] * 1), tmp_path / "a", tmp_path / "a")
    assert ended.returncode == 0
    assert "received   3 records: 1 by falco_file, 2 by falco_http" in ended.stdout
    assert "delivered  2 of 2 alerts" in ended.stdout
    assert "repeated   1" in ended.stdout


def test_a_loss_is_noticed(tmp_path: Path) -> None:
    """An alert that the file source refuses (its line is too long) is missing at the receiver: exit status 1."""
    ended = adsbridge("demo", "--json", recording(tmp_path / "a", "first", "x" * 1_100_000, "third"))
    assert ended.returncode == 1
    assert len(ended.stdout.splitlines()) == 2
    assert "delivered  2 of 3 alerts" in ended.stderr
    assert "MISSING    2026-11-21T20:27:51.100000000Z falco Some Rule something: xxx" in ended.stderr
    assert "falco_file too_long 1" in ended.stderr
    assert "what was delivered differs from what was fed" in ended.stderr
