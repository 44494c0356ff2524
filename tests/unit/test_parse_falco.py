"""What Falco wrote, in every shape that was recorded, becomes the alert that it means."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from adsbridge.errors import ParseError
from adsbridge.events import Container, Event, Kubernetes, Network, Process, Severity
from adsbridge.parse import falco, join_continued, parse_all
from support.samples import encoded, lines, records

MAIN = "falco/main/file_output.jsonl"
KUBERNETES = "falco/k8s-labels-0431/file_output.jsonl"
TEXT = "falco/textmode/file_output.txt"


def events(name: str) -> list[Event]:
    parsed = parse_all(falco.parse, [(line, b"") for line in lines(name)])
    assert parsed.rejected == []
    return parsed.events


def event(**record: Any) -> Event:
    (found,) = falco.parse(encoded({"rule": "a rule", **record}))
    return found


def content(event: Event) -> dict[str, Any]:
    """What an alert says, beside what differs between transports: the record itself and the id made from it."""
    return {name: getattr(event, name) for name in Event.__struct_fields__ if name not in {"raw", "id"}}


@pytest.fixture
def prague(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine whose time zone is not UTC."""
    monkeypatch.setenv("TZ", "Europe/Prague")
    time.tzset()
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("name", "alerts"),
    [
        ("falco/main/file_output.jsonl", 25),
        ("falco/main/http_bodies.jsonl", 25),
        ("falco/main/grpc_get.jsonl", 25),
        ("falco/containers-allengines/file_output.jsonl", 21),
        ("falco/containers-allengines/http.bodies.jsonl", 21),
        ("falco/extras/file_output.jsonl", 8),
        ("falco/extras/grpc_get.jsonl", 8),
        ("falco/falco-0.40.0/file_output.jsonl", 27),
        ("falco/falco-0.40.0/http_bodies.jsonl", 27),
        ("falco/falco-0.40.0/grpc_get.jsonl", 27),
        ("falco/k8s-labels-0431/file_output.jsonl", 6),
        ("falco/k8s-labels-0431/grpc_get.jsonl", 6),
        ("falco/plugin/stdout.jsonl", 8),
        ("falco/plugin/grpc_get.jsonl", 8),
        ("falco/k8saudit/stdout.jsonl", 43),
        ("falco/textmode/grpc_get.jsonl", 3),
    ],
)
def test_every_alert_recorded_is_read_and_nothing_else(name: str, alerts: int) -> None:
    """A recording gives as many alerts as it holds, each saying what its record says; Falco's statistics none."""
    parsed = parse_all(falco.parse, join_continued([(line, b"") for line in lines(name)], falco.starts_text))
    assert (len(parsed.events), parsed.rejected) == (alerts, [])
    said = [json.loads(line) for line in lines(name) if line.startswith(b"{")]
    assert [(found.detection, found.source) for found in parsed.events] == [
        (one["rule"], one["source"]) for one in said
    ]
    assert [found.host and found.host.name for found in parsed.events] == [one["hostname"] for one in said]
    assert [found.tags for found in parsed.events] == [one.get("tags", []) for one in said]


def test_text_output_is_read_with_the_line_end_that_a_process_put_into_its_own_arguments() -> None:
    """Six recorded lines are five alerts: one process had a line end in its arguments, another invalid UTF-8."""
    joined = list(join_continued([(line, b"") for line in lines(TEXT)], falco.starts_text))
    parsed = parse_all(falco.parse, joined, host="node")
    assert (len(parsed.events), len(parsed.rejected)) == (5, 0)
    assert [found.severity for found in parsed.events] == ["medium", "critical", "low", "medium", "medium"]
    assert all(found.host and found.host.name == "node" for found in parsed.events)
    garbled, broken = parsed.events[3:]
    assert "command=cat /etc/shadow /tmp/\ufffd\ufffd\ufffdbad terminal=0" in garbled.summary
    assert '/tmp/ünï\\n"quote\\tab\\t terminal=0' in broken.summary
    assert json.loads(bytes(broken.raw)).count("\n") == 1


@pytest.mark.parametrize("folder", ["main", "k8s-labels-0431", "falco-0.40.0", "plugin", "extras"])
def test_grpc_carries_the_same_alerts_as_the_file(folder: str) -> None:
    """What Falco handed out over gRPC with json_output is, alert for alert, what it wrote into its file."""
    file = "stdout" if folder == "plugin" else "file_output"
    written = [line for line in lines(f"falco/{folder}/{file}.jsonl") if line.startswith(b"{")]
    by_file = parse_all(falco.parse, [(line, b"") for line in written]).events
    by_grpc = events(f"falco/{folder}/grpc_get.jsonl")
    if folder == "extras":  # Falco's metrics snapshots are taken anew for each
        by_file, by_grpc = ([one for one in found if one.source == "syscall"] for found in (by_file, by_grpc))
    assert [content(one) for one in by_grpc] == [content(one) for one in by_file]


def test_an_output_that_only_looks_like_json_is_a_message() -> None:
    """A gRPC alert whose message starts with a brace is kept with that message, not rejected."""
    assert event(output="{not json").summary == "{not json"
    assert event(output='{"no": "rule"}').summary == '{"no": "rule"}'


SWITCHES = ["output", "output_fields", "tags", "message"]


@pytest.mark.parametrize("switched_off", [
    off for count in range(len(SWITCHES) + 1) for off in itertools.combinations(SWITCHES, count)
])  # fmt: skip
def test_every_combination_of_the_json_include_switches_is_understood(switched_off: tuple[str, ...]) -> None:
    """An alert keeps its rule, time, severity and host whatever is switched off, and all else that is left on."""
    record = next(one for one in records("falco/extras/file_output.jsonl") if "message" in one)
    whole = event(**record)
    found = event(**{key: value for key, value in record.items() if key not in switched_off})
    assert (found.detection, found.time, found.severity, found.host, found.source) == (
        whole.detection, whole.time, whole.severity, whole.host, whole.source,
    )  # fmt: skip
    assert found.tags == ([] if "tags" in switched_off else whole.tags)
    assert found.fields == ({} if "output_fields" in switched_off else record["output_fields"])
    assert found.summary
    if {"output", "message"} <= set(switched_off):
        assert found.summary.startswith(record["rule"])
    else:
        assert found.summary.startswith("Sensitive file opened for reading by non-trusted program")


@pytest.mark.parametrize("kept", ["output", "message"])
def test_a_container_is_found_in_the_message_when_the_fields_are_switched_off(kept: str) -> None:
    """With json_include_output_fields_property off, the suffix that Falco appends still names container and pod."""
    record = records(KUBERNETES)[1]
    text = record["output"] if kept == "output" else record["output"].split(": ", 1)[1].split(" ", 1)[1]
    found = event(**{kept: text})
    assert found.container is not None
    assert (found.container.id, found.container.image) == ("88558afe499b", "tinyd")
    assert found.kubernetes == Kubernetes(namespace="demo-ns", pod="demo-pod")


def test_what_a_process_writes_into_its_command_line_names_no_container() -> None:
    """Only what Falco appends itself counts: a fake suffix in the middle of a message is not believed."""
    fake = "container_id=fake container_name=x container_image_repository=i container_image_tag=t k8s_pod_name=p "
    real = fake.replace("fake", "real") + "k8s_ns_name=n"
    (found,) = falco.parse(f"20:30:08.1: Warning command={fake}k8s_ns_name=n {real}".encode())
    assert found.container is not None
    assert found.container.id == "real"
    (found,) = falco.parse(f"20:30:08.1: Warning command={fake}k8s_ns_name=n and more".encode())
    assert found.container is None


def test_a_message_full_of_suffixes_is_read_in_no_time() -> None:
    """A text alert of one mebibyte made to look like thousands of suffixes takes no longer than any other."""
    message = b"20:30:08.1: Warning " + b"container_id=" * 80_000
    started = time.process_time()
    falco.parse(message)
    assert time.process_time() - started < 10  # a regular expression that tries each of them takes minutes


@pytest.mark.parametrize(
    "name", [MAIN, "falco/falco-0.40.0/file_output.jsonl", "falco/k8saudit/stdout.jsonl", "falco/plugin/stdout.jsonl"]
)
def test_nanoseconds_are_kept(name: str) -> None:
    """The alert's time is the record's, to the nanosecond."""
    said = [json.loads(line) for line in lines(name) if line.startswith(b"{")]
    parsed = parse_all(falco.parse, [(encoded(one), b"") for one in said])
    assert [found.time for found in parsed.events] == [one["time"] for one in said]
    assert all(len(found.time) == 30 for found in parsed.events)


def test_a_shorter_fraction_is_filled_up() -> None:
    """Falco's gRPC times leave out trailing zeros; the alert's time has all nine digits."""
    assert event(time="2026-11-21T20:34:13.945157Z").time == "2026-11-21T20:34:13.945157000Z"
    assert event(time="2026-11-21T20:34:13Z").time == "2026-11-21T20:34:13.000000000Z"


@pytest.mark.parametrize(
    "wrong", ["", "yesterday", "2026-13-01T00:00:00Z", "9999-01-01T00:00:00Z", "0001-01-01T00:00:00Z"]
)
def test_an_alert_without_a_usable_time_gets_the_time_of_its_arrival(wrong: str) -> None:
    """A missing or impossible time costs no alert: the time now takes its place."""
    before = time.time_ns()
    stamp = event(time=wrong).time
    assert before // 10**9 <= int(time.mktime(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))) - time.timezone


@pytest.mark.parametrize(
    ("priority", "severity"),
    [
        ("Emergency", Severity.CRITICAL), ("Alert", Severity.CRITICAL), ("Critical", Severity.CRITICAL),
        ("Error", Severity.HIGH), ("Warning", Severity.MEDIUM), ("Notice", Severity.LOW),
        ("Informational", Severity.INFORMATIONAL), ("Debug", Severity.INFORMATIONAL),
        ("WARNING", Severity.MEDIUM), ("INFO", Severity.INFORMATIONAL), ("", Severity.MEDIUM), ("?", Severity.MEDIUM),
    ],
)  # fmt: skip
def test_priorities_become_severities(priority: str, severity: Severity) -> None:
    """Each of Falco's priorities has its severity, in either spelling; an unknown one counts as medium."""
    assert event(priority=priority).severity is severity


def test_the_context_of_an_alert_from_a_pod() -> None:
    """Container, pod and process stand where routes and responders look for them."""
    found = events(KUBERNETES)[2]
    assert found.container == Container(
        id="88558afe499b", name="k8s_democtr_demo-pod_demo-ns_0a1b_0", image="tinyd", tag="latest"
    )
    assert found.kubernetes == Kubernetes(namespace="demo-ns", pod="demo-pod")
    assert found.process is not None
    assert (found.process.pid, found.process.ppid, found.process.name, found.process.uid) == (20731, 20712, "cat", 0)
    assert found.process.login_uid is None
    assert found.summary == "proc mem read: cat /proc/1/mem"


def test_on_the_host_there_is_no_container() -> None:
    """container.id "host" means no container, over the file as over gRPC and as text."""
    for name in (MAIN, "falco/main/grpc_get.jsonl", "falco/textmode/grpc_get.jsonl"):
        on_host = [one for one in events(name) if one.fields["container.id"] == "host"]
        assert on_host
        assert all(one.container is None for one in on_host)


def test_the_first_events_of_a_container_have_its_id_only() -> None:
    """Name and image that are null are left out, not invented; an id need not be hexadecimal."""
    found = events("falco/containers-allengines/file_output.jsonl")
    assert found[0].container == Container(id="8a8b567999d8")
    assert found[16].container == Container(id="ctrtest")


def test_a_missing_value_is_missing_however_it_is_written() -> None:
    """null, the empty string and "<NA>" all mean that Falco did not know."""
    for missing in (None, "", "<NA>"):
        found = event(
            output_fields={
                "container.id": "c1", "container.name": missing, "container.image.repository": missing,
                "proc.name": "cat", "proc.pid": missing, "k8s.ns.name": missing, "fd.cip": missing, "fd.sport": missing,
            }
        )  # fmt: skip
        assert found.container == Container(id="c1")
        assert found.process == Process(name="cat")
        assert found.kubernetes is None
        assert found.network is None


def test_a_connection_is_told() -> None:
    """Client and server, or local and remote where Falco names those; numbers in strings count."""
    fields = {"fd.l4proto": "tcp", "fd.cip": "10.0.0.1", "fd.cport": 40000, "fd.sip": "10.0.0.2", "fd.sport": "443"}
    assert event(output_fields=fields).network == Network("tcp", "10.0.0.1", 40000, "10.0.0.2", 443)
    fields = {"fd.lip": "::1", "fd.lport": 1, "fd.rip": "::2", "fd.rport": 2}
    assert event(output_fields=fields).network == Network(None, "::1", 1, "::2", 2)


def test_a_kubernetes_audit_event_names_who_did_what_to_what() -> None:
    """The audit log's fields become user, verb, resource, name and namespace; list values stay lists."""
    parsed = parse_all(falco.parse, [(line, b"") for line in lines("falco/k8saudit/stdout.jsonl")])
    attach = parsed.events[2]
    assert attach.process is not None
    assert attach.process.user == "minikube-user"
    assert attach.kubernetes is not None
    assert (attach.kubernetes.namespace, attach.kubernetes.resource) == ("default", "pods")
    assert parsed.events[1].fields["ka.req.binding.subjects"] == [
        '{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"minikube"}'
    ]


def test_fields_keep_their_types() -> None:
    """Integers beyond 2^53, booleans, nulls and floats come through as they were written."""
    found = events(MAIN)[1].fields
    assert found["evt.time.iso8601"] == 1795292873180742020
    assert found["proc.is_exe_writable"] is True
    assert found["fd.cip"] is None
    snapshot = events("falco/extras/file_output.jsonl")[0]
    assert snapshot.fields["falco.container_memory_used_mb"] == 4427.1
    assert snapshot.source == "internal"
    assert snapshot.summary == "Falco metrics snapshot"


@pytest.mark.parametrize("name", [MAIN, KUBERNETES, "falco/main/grpc_get.jsonl"])
def test_raw_is_the_record_as_falco_made_it(name: str) -> None:
    """A person who doubts the bridge finds Falco's own words, byte for byte."""
    for line, found in zip(lines(name), events(name), strict=True):
        said = json.loads(line)["output"].encode() if "grpc" in name else line
        assert bytes(found.raw) == said


def test_a_pretty_printed_record_is_kept_on_one_line() -> None:
    """Alerts travel as JSON lines, so line ends between a record's values are taken out; nothing else is."""
    record = records(MAIN)[0]
    (found,) = falco.parse(json.dumps(record, indent=2).encode())
    assert b"\n" not in bytes(found.raw)
    assert json.loads(bytes(found.raw)) == record
    assert content(found) == content(events(MAIN)[0])


def test_a_record_with_invalid_utf_8_is_mended_not_lost() -> None:
    """Bytes that are no UTF-8 become U+FFFD, in the alert as in its raw record."""
    line = lines(MAIN)[0].replace(b"cat /etc/shadow", b"cat \xff\xfe")
    (found,) = falco.parse(line)
    assert found.process is not None
    assert found.process.command_line == "cat \ufffd\ufffd"
    assert json.loads(bytes(found.raw))["output_fields"]["proc.cmdline"] == "cat \ufffd\ufffd"


def test_the_summary_leaves_falcos_prefix_out_and_nothing_else() -> None:
    """Time and priority stand in their own fields; the same words inside a message stay."""
    assert event(output="2026-11-21T20:27:53.174345369+0000: Warning Sensitive file").summary == "Sensitive file"
    assert event(output="20:27:53.174345369: Error Debug mode").summary == "Debug mode"
    assert event(output="Falco internal: Debug mode on").summary == "Falco internal: Debug mode on"


@pytest.mark.parametrize(
    ("now", "clock", "expected"),
    [
        ("2026-11-21T12:00:00", "11:59:58.123456789", "2026-11-21T10:59:58.123456789Z"),
        ("2026-11-22T00:00:05", "23:59:58.5", "2026-11-21T22:59:58.500000000Z"),
        ("2026-11-21T23:59:59", "23:59:59.0", "2026-11-21T22:59:59.000000000Z"),
        ("2026-11-21T23:30:00", "00:10:00.0", "2026-11-20T23:10:00.000000000Z"),
        ("2026-11-22T00:00:00", "00:00:01.0", "2026-11-21T23:00:01.000000000Z"),
        # Summer time ended at 03:00 that morning: an hour before it is an hour and a half before noon's offset.
        ("2026-10-25T12:00:00", "01:30:00.0", "2026-10-24T23:30:00.000000000Z"),
    ],
)
def test_a_text_alert_tells_the_time_of_day(prague: pytest.MonkeyPatch, now: str, clock: str, expected: str) -> None:
    """It is the local time nearest before now, across midnight and across the end of summer time."""
    stamp = time.mktime(time.strptime(now, "%Y-%m-%dT%H:%M:%S"))
    prague.setattr("time.time", lambda: stamp)
    (found,) = falco.parse(f"{clock}: Warning something".encode())
    assert found.time == expected


def test_a_text_alert_with_a_date_keeps_it() -> None:
    """With time_format_iso_8601 a text line has the date and the zone, too."""
    (found,) = falco.parse(b"2026-11-21T21:30:08.470188953+0100: Notice something (user=root)")
    assert found.time == "2026-11-21T20:30:08.470188953Z"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "not_falco"),
        (b"Events detected: 43 of 44", "not_falco"),
        ("\u0661\u0662:30:08.1: Warning digits of another script".encode(), "not_falco"),
        (b"{", "not_json"),
        (b'{"rule":"x"} trailing', "not_json"),
        (b'{"rule":"x"}\0', "not_json"),
        (b"{}", "wrong_shape"),
        (b'{"rule":1}', "wrong_shape"),
        (b'{"rule":"x","output_fields":[]}', "wrong_shape"),
        (b'{"rule":"x","tags":"a"}', "wrong_shape"),
        (b'{"rule":"x","tags":[1]}', "wrong_shape"),
        (b'{"rule":"x","priority":null}', "wrong_shape"),
        (b'{"rule":"x","output":{}}', "wrong_shape"),
        (b'{"rule":"x","hostname":1}', "wrong_shape"),
        (b'{"rule":"x","output_fields":{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}}", "too_deep"),
        (b'{"rule":"x","output_fields":{"a":' + b"[" * 99 + b"]" * 99 + b"}}", "too_deep"),
        (b'{"rule":"x","output_fields":{"a":' * 10_000, "too_deep"),
    ],
)
def test_what_is_no_alert_is_rejected_with_its_reason(record: bytes, reason: str) -> None:
    """Each kind of mistake has a reason to count by and a text that says what was expected."""
    with pytest.raises(ParseError) as caught:
        falco.parse(record)
    assert caught.value.reason == reason
    assert str(caught.value)
