"""``adsbridge replay`` and ``explain``: nothing of any recording is lost or misread, and each decision is explained."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adsbridge.events import decode
from support.command import DATA, adsbridge, quick
from support.receiver import Answer, Receiver

COUNTS = re.compile(r"(.*): (\d+) alerts?, (\d+) suppressed, (\d+) not understood")
LINES = sorted(
    path
    for pattern in ("falco/**/*.jsonl", "osquery/**/*.log")
    for path in DATA.glob(pattern)
    if path.name != "stdout.jsonl"
)
CAPTURES = sorted((DATA / "osquery/tls/plain").glob("*.json"))
COUNTED = {
    # Falco's closing statistics are no alert and no mistake.
    "falco/k8saudit/stdout.jsonl": (43, 0, 0),
    "falco/plugin/stdout.jsonl": (8, 0, 0),
    "falco/textmode/file_output.txt": (5, 0, 0),
    "falco/textmode/http_bodies.txt": (5, 0, 0),
    "osquery/audit/osqueryd.WARNING": (1, 0, 0),
    "osquery/batch/osqueryd.WARNING": (8, 0, 0),
    "osquery/event_default/osqueryd.WARNING": (20, 0, 0),
    "osquery/numerics_toplevel/osqueryd.WARNING": (8, 0, 0),
    "osquery/snap_event/osqueryd.WARNING": (8, 0, 0),
    # Rows without the time of their event: the first set may have been there before.
    "osquery/bpf_patched/osqueryd.results.log": (41, 0, 0),
    # What is not understood here are calls that carry no record.
    "osquery/extension/auto.jsonl": (79, 6, 5),
    "osquery/extension/ext_3.11.jsonl": (42, 6, 3),
    "osquery/extension/ext_3.12.jsonl": (42, 6, 3),
    "osquery/extension/ext_3.13.jsonl": (42, 6, 3),
    "osquery/extension/mode_fail.jsonl": (45, 6, 6),
    "osquery/extension/mode_killed.jsonl": (23, 6, 4),
    "osquery/extension/mode_raise.jsonl": (45, 6, 6),
}


def rows(line: dict[str, Any]) -> list[tuple[str, Any]]:
    """(action, row) of each row of an osquery result line, in any of its three shapes."""
    if "diffResults" in line:
        changes = line["diffResults"] or {}
        return [(action, row) for action in ("removed", "added") for row in changes.get(action, [])]
    if "snapshot" in line:
        return [("snapshot", row) for row in line["snapshot"]]
    return [(line["action"], line["columns"])]


def expected_of_line(line: dict[str, Any]) -> tuple[int, int]:
    """(alerts, suppressed) that a recorded line must become, told by its text alone."""
    if "rule" in line or "severity" in line:
        return 1, 0
    found = rows(line)
    evented = {"auid", "syscall", "category", "transaction_id"}
    initial = [action == "added" and line["counter"] == 0 and not evented & row.keys() for action, row in found]
    return initial.count(False), initial.count(True)


def expected(path: Path) -> tuple[int, int, int]:
    name = str(path.relative_to(DATA))
    if name in COUNTED:
        return COUNTED[name]
    if path in CAPTURES:
        body = json.loads(path.read_text()).get("body") or {}
        lines = body.get("data") or [] if isinstance(body, dict) else []
    else:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    found = [expected_of_line(line) for line in lines]
    return sum(alerts for alerts, _ in found), sum(suppressed for _, suppressed in found), 0


def test_every_recording_becomes_the_alerts_that_it_holds() -> None:
    """Each file of recordings, in every format, gives the alerts that its own text says, none lost, none invented."""
    files = [*LINES, *CAPTURES, *(DATA / name for name in COUNTED)]
    ended = adsbridge("replay", *files)
    found = {
        match[1]: (int(match[2]), int(match[3]), int(match[4]))
        for match in map(COUNTS.match, ended.stderr.splitlines())
        if match
    }
    wrong = {
        str(path): (found.get(str(path)), expected(path)) for path in files if found.get(str(path)) != expected(path)
    }
    assert wrong == {}
    alerts = [decode(line.encode()) for line in ended.stdout.splitlines()]
    total = [sum(column) for column in zip(*map(expected, files), strict=True)]
    assert len(alerts) == total[0] > 1500
    assert ended.stderr.splitlines()[-1] == f"{total[0]} alerts, {total[1]} suppressed, {total[2]} not understood"
    assert ended.returncode == 1, "some lines hold no record"


def test_the_recordings_are_all_there() -> None:
    """The test above reads what it says that it reads: every folder of recordings that holds records."""
    folders = {path.parent.name for path in (*LINES, *CAPTURES, *(DATA / name for name in COUNTED))}
    assert {"main", "falco-0.40.0", "extras", "plain", "extension", "textmode", "batch", "fim"} <= folders
    assert len(LINES) > 30
    assert len(CAPTURES) == 28


def test_the_same_event_is_read_the_same_over_each_transport() -> None:
    """Falco's alerts say the same whether they came by file, HTTP or gRPC (which has strings for all values)."""
    texts = []
    for name in ("file_output.jsonl", "http_bodies.jsonl", "grpc_get.jsonl"):
        ended = quick("replay", DATA / "falco/main" / name)
        assert ended.returncode == 0
        alerts = [json.loads(line) for line in ended.stdout.splitlines()]
        texts.append(
            Counter(
                (one["time"], one["detection"], one["severity"], one["summary"], json.dumps(one.get("container")),
                 json.dumps(one.get("process", {}).get("pid")), json.dumps(one.get("strategy", {}).get("id")))
                for one in alerts
            )
        )  # fmt: skip
    assert texts[0] == texts[1] == texts[2]


def test_standard_input_is_read() -> None:
    """``-`` reads what another command writes; the alerts are those of the file."""
    path = DATA / "falco/main/file_output.jsonl"
    assert adsbridge("replay", "-", stdin=path.read_bytes()).stdout == adsbridge("replay", path).stdout
    capture = CAPTURES[7]
    assert adsbridge("replay", "-", stdin=capture.read_bytes()).stdout == adsbridge("replay", capture).stdout
    assert adsbridge("explain", "-", stdin=b"").returncode == 0


def test_what_is_not_understood_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Bad lines between good ones are told with their reason, a few of them, and the exit status is 1."""
    good = (DATA / "falco/main/file_output.jsonl").read_bytes().splitlines()[0]
    path = tmp_path / "mixed.log"
    path.write_bytes(b"\n".join([good, *[b"{broken %d" % number for number in range(8)], b"", good, b"{}"]))
    ended = adsbridge("replay", path)
    assert ended.returncode == 1
    assert len(ended.stdout.splitlines()) == 2
    told = ended.stderr.splitlines()
    assert [line for line in told if line.startswith(f"{path}: not_json: ")] == told[:5]
    assert told[5:] == [f"{path}: and 4 more", "2 alerts, 0 suppressed, 9 not understood"]


def test_a_file_that_holds_no_record_is_told() -> None:
    """A wrong file says so, rather than passing as empty."""
    path = DATA / "falco_names.json"
    ended = quick("replay", path)
    assert ended.stderr.splitlines() == [
        f"{path}: holds no record of Falco's or osquery's",
        "0 alerts, 0 suppressed, 0 not understood",
    ]


@pytest.mark.parametrize("command", ["replay", "explain", "demo"])
def test_files_that_cannot_be_read_are_an_error_of_the_call(command: str, tmp_path: Path) -> None:
    """A missing file and a folder are told by name, before anything is done, with exit status 2."""
    for path, reason in ((tmp_path / "missing", "No such file or directory"), (tmp_path, "Is a directory")):
        ended = quick(command, path)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert f"{path}: {reason}" in ended.stderr


DELIVER = """\
sources: {{falco: {{type: falco_http}}}}
sinks:
  out: {{type: file, path: {folder}/alerts.jsonl}}
  soc: {{type: webhook, url: "{url}"}}
routes:
  - {{name: claimed, match: {{strategy: "ADS-*"}}, sinks: [out, soc]}}
  - {{name: rest, sinks: [out]}}
"""


def test_deliver_brings_the_alerts_to_their_sinks(tmp_path: Path) -> None:
    """With --deliver, each sink gets what the routes give it, the same that is printed; without, none gets anything."""
    path = tmp_path / "c.yaml"
    recording = DATA / "falco/main/file_output.jsonl"
    with Receiver() as receiver:
        path.write_text(DELIVER.format(folder=tmp_path, url=receiver.url))
        assert adsbridge("replay", recording, "-c", path).returncode == 0
        assert not (tmp_path / "alerts.jsonl").exists()
        ended = adsbridge("replay", "--deliver", recording, "-c", path)
        assert ended.returncode == 0, ended.stderr
        printed = ended.stdout.splitlines()
        assert sorted((tmp_path / "alerts.jsonl").read_text().splitlines()) == sorted(printed)
        claimed = [one for one in map(json.loads, printed) if "strategy" in one]
        assert receiver.alerts == claimed
        assert claimed


@pytest.mark.parametrize("status", [0, 400, 500])
def test_what_is_not_delivered_is_told(tmp_path: Path, status: int) -> None:
    """A destination that fails or refuses makes the exit status 1, and the sink and its count are named."""
    path = tmp_path / "c.yaml"
    with Receiver(lambda _: Answer(status)) as receiver:
        path.write_text(DELIVER.format(folder=tmp_path, url=receiver.url))
        ended = adsbridge("replay", "--deliver", DATA / "falco/main/file_output.jsonl", "-c", path)
    claimed = [one for one in map(json.loads, ended.stdout.splitlines()) if "strategy" in one]
    assert ended.returncode == 1
    assert f"sink soc: {len(claimed)} alerts not delivered" in ended.stderr
    assert len((tmp_path / "alerts.jsonl").read_text().splitlines()) == len(ended.stdout.splitlines())


EXPLAIN = """\
sources:
  falco: {type: falco_http}
  osquery: {type: osquery_log, path: /var/log/osquery/osqueryd.results.log}
sinks: {soc: {type: console}, file: {type: console}}
routes:
  - {name: archive, sinks: [file], continue: true}
  - {name: scans, match: {strategy: ADS-0001, severity: medium}, sinks: [soc]}
  - {name: critical, match: {severity: critical}, sinks: [soc]}
unmatched: []
"""


def explained(path: Path, *files: Path) -> list[list[str]]:
    """What is said about each event, line by line."""
    ended = quick("explain", *files, "-c", path)
    assert ended.returncode == 0, ended.stderr
    return [block.splitlines() for block in ended.stdout.strip().split("\n\n")]


def test_explain_tells_strategy_and_routes_of_a_falco_alert(tmp_path: Path) -> None:
    """Each event has its strategy with the reason, each route's yes or no with the reason, and its sinks."""
    path = tmp_path / "c.yaml"
    path.write_text(EXPLAIN)
    blocks = explained(path, DATA / "falco/main/file_output.jsonl")
    assert len(blocks) == 25
    scan = next(block for block in blocks if "Launch Suspicious Network Tool in Container" in block[0])
    assert scan[1:] == [
        "  Network tool launched in container: nmap -sV 10.0.0.1",
        "  strategy  ADS-0001 A process in a container scans the network: it names"
        " Launch Suspicious Network Tool in Container",
        "  route     archive: yes: takes everything",
        "  route     scans: yes: strategy ADS-0001; severity at least medium",
        "  route     critical: not tried: scans took it and does not continue",
        "  sinks     file, soc",
    ]
    shadow = next(block for block in blocks if "Read sensitive file untrusted" in block[0])
    assert shadow[2:] == [
        "  strategy  none: no strategy names this rule",
        "  route     archive: yes: takes everything",
        "  route     scans: no: needs strategy ADS-0001 (it is none)",
        "  route     critical: no: needs severity at least critical (it is medium)",
        "  sinks     file",
    ]


def test_explain_tells_why_an_osquery_row_is_held_back(tmp_path: Path) -> None:
    """Rows are explained one by one; an initial full set says why it goes nowhere, a status line what it is."""
    path = tmp_path / "c.yaml"
    path.write_text(EXPLAIN.replace("  - {name: archive, sinks: [file], continue: true}\n", ""))
    blocks = explained(path, DATA / "osquery/batch/osqueryd.results.log")
    held = [block for block in blocks if any(line.startswith("  held back initial_results: ") for line in block)]
    assert len(held) == 6
    assert all(not any("route" in line for line in block) for block in held)
    dropped = next(block for block in blocks if block not in held)
    assert dropped[-1] == "  sinks     none: it is dropped and counted (by default: no route takes it)"
    (status, *_) = explained(path, DATA / "osquery/audit/osqueryd.WARNING")
    assert "  strategy  none: this is osquery's own log" in status
