"""Falco's alerts: JSON in every combination of its json_include_* switches, and text lines.

Format: https://falco.org/docs/concepts/outputs/formatting/. ``rule`` is the one property that every JSON
alert has; ``output``, ``output_fields``, ``tags`` and ``message`` can each be switched off. A text line has
no rule name at all: json_output should be on.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec

from adsbridge import timestamps
from adsbridge.errors import ParseError
from adsbridge.events import Container, Event, Host, Kubernetes, Network, Process, Severity
from adsbridge.parse import as_text, decode_record, event_id, raw_json
from adsbridge.parse.values import integer, one_line, text

TEXT_DETECTION = "(Falco text output)"
"""The detection of a text line, which does not name its rule."""

_SEVERITIES = {
    "emergency": Severity.CRITICAL,
    "alert": Severity.CRITICAL,
    "critical": Severity.CRITICAL,
    "error": Severity.HIGH,
    "warning": Severity.MEDIUM,
    "notice": Severity.LOW,
    "informational": Severity.INFORMATIONAL,
    "info": Severity.INFORMATIONAL,
    "debug": Severity.INFORMATIONAL,
}
_PRIORITIES = "Emergency|Alert|Critical|Error|Warning|Notice|Informational|Debug"
_PREFIX = re.compile(rf"\A(?:[\dT:.+-]{{15,40}}: )?(?:{_PRIORITIES}) ")
_LINE = re.compile(
    r"(?P<time>(?:\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d\.\d+(?:[+-]\d{4})?): "
    rf"(?P<priority>{_PRIORITIES}) (?P<message>.*)",
    re.DOTALL | re.ASCII,
)
# Falco appends these itself, behind all that a process can write into its own command line.
_SUFFIX_START = "container_id="
_SUFFIX = re.compile(
    r"container_id=(?P<id>\S+) container_name=(?P<name>\S*)"
    r"(?: container_image_repository=(?P<image>\S*) container_image_tag=(?P<tag>\S*)"
    r" k8s_pod_name=(?P<pod>\S*) k8s_ns_name=(?P<namespace>\S*))?\)?$"
)
_SUFFIX_FIELDS = {
    "id": "container.id",
    "name": "container.name",
    "image": "container.image.repository",
    "tag": "container.image.tag",
    "pod": "k8s.pod.name",
    "namespace": "k8s.ns.name",
}
_KUBERNETES_FIELDS = {
    "k8s.ns.name", "k8s.pod.name", "ka.target.namespace", "ka.target.pod.name", "ka.target.resource",
    "ka.target.name", "ka.verb",
}  # fmt: skip
_NETWORK_FIELDS = {
    "fd.l4proto", "fd.cip", "fd.sip", "fd.lip", "fd.rip", "fd.cport", "fd.sport", "fd.lport", "fd.rport",
    "ka.sourceips",
}  # fmt: skip
_NO_KUBERNETES, _NO_NETWORK = Kubernetes(), Network()
# What Falco prints to its standard output when it ends, behind the alerts.
_STATISTICS = re.compile(
    rb"Events detected: \d+"
    rb"(?:\nRule counts by severity:(?:\n   [A-Z]+: \d+)*)?"
    rb"(?:\nTriggered rules by rule name:(?:\n   [^\n]+: \d+)*)?\s*\Z"
)
_FIELD_LIST = re.compile(r" (?:\| |\()[\w.]+=")


class _Record(msgspec.Struct, gc=False):
    rule: str
    priority: str = ""
    time: str = ""
    output: str = ""
    message: str = ""
    output_fields: dict[str, Any] | None = None
    source: str = "syscall"
    tags: list[str] | None = None
    hostname: str | None = None


_decoder = msgspec.json.Decoder(_Record)


def parse(record: bytes, position: bytes = b"", *, host: str | None = None) -> list[Event]:
    """One alert of Falco's, JSON or text, to its event, none for its closing statistics; see ``Parser``."""
    if record[:1] == b"{":
        return [_json_event(record, position, host)]
    if _STATISTICS.match(record):
        return []
    return [_text_event(record, position, host)]


def starts_text(line: bytes) -> bool:
    """Whether a line starts an alert of Falco's text output (a message may hold line ends of its own)."""
    return _LINE.match(as_text(line)) is not None or _STATISTICS.match(line) is not None


def _json_event(raw: bytes, position: bytes, host: str | None) -> Event:
    record = decode_record(_decoder, raw)
    if record.output[:1] == "{":  # over gRPC with json_output, the output is the whole alert
        with suppress(ParseError):
            return _json_event(record.output.encode(), position, host)
    fields = record.output_fields or {}
    context = fields or _appended(record.output or record.message)
    name = record.hostname or host
    return Event(
        id=event_id(raw, position),
        time=_time(record.time),
        sensor="falco",
        source=record.source,
        detection=record.rule,
        severity=_SEVERITIES.get(record.priority.lower(), Severity.MEDIUM),
        summary=_summary(record, fields),
        host=Host(name=name) if name else None,
        process=_process(fields),
        container=_container(context),
        kubernetes=_kubernetes(context),
        network=_network(fields),
        tags=record.tags or [],
        fields=fields,
        raw=raw_json(raw),
    )


def _time(value: str) -> str:
    try:
        return timestamps.normalise(value)
    except ValueError:
        return timestamps.now()


def _summary(record: _Record, fields: dict[str, Any]) -> str:
    message = record.message or _without_prefix(record.output)
    found = _FIELD_LIST.search(message)
    command = text(fields.get("proc.cmdline"))
    headline = message or record.rule
    if command and (found or not message):  # else the fields say what happened: a cloud's or cluster's audit log
        headline = f"{message[: found.start()] if found else headline}: {command}"
        file = text(fields.get("fd.name"))
        if file and file not in command:
            headline = f"{headline} ({file})"
    return one_line(headline)


def _without_prefix(output: str) -> str:
    found = _PREFIX.match(output)
    return output[found.end() :] if found else output


def _process(fields: dict[str, Any]) -> Process | None:
    get = fields.get
    name = text(get("proc.name"))
    user = text(get("user.name")) or text(get("ka.user.name")) or text(get("ct.user"))
    if name is None and user is None and "proc.pid" not in fields:
        return None
    login_uid = integer(get("user.loginuid"))
    return Process(
        pid=integer(get("proc.pid")),
        ppid=integer(get("proc.ppid")),
        name=name,
        executable=text(get("proc.exepath")),
        command_line=text(get("proc.cmdline")),
        parent=text(get("proc.pname")),
        working_directory=text(get("proc.cwd")),
        user=user,
        uid=integer(get("user.uid")),
        login_uid=None if login_uid in {-1, 4294967295} else login_uid,
    )


def _container(fields: dict[str, Any]) -> Container | None:
    container_id = text(fields.get("container.id"))
    if container_id is None or container_id == "host":
        return None
    return Container(
        id=container_id,
        name=text(fields.get("container.name")),
        image=text(fields.get("container.image.repository")),
        tag=text(fields.get("container.image.tag")),
        digest=text(fields.get("container.image.digest")),
        runtime=text(fields.get("container.type")),
    )


def _kubernetes(fields: dict[str, Any]) -> Kubernetes | None:
    if _KUBERNETES_FIELDS.isdisjoint(fields):
        return None
    get = fields.get
    part = Kubernetes(
        namespace=text(get("k8s.ns.name")) or text(get("ka.target.namespace")),
        pod=text(get("k8s.pod.name")) or text(get("ka.target.pod.name")),
        resource=text(get("ka.target.resource")),
        name=text(get("ka.target.name")),
        verb=text(get("ka.verb")),
    )
    return None if part == _NO_KUBERNETES else part


def _network(fields: dict[str, Any]) -> Network | None:
    if _NETWORK_FIELDS.isdisjoint(fields):
        return None
    get = fields.get
    part = Network(
        protocol=text(get("fd.l4proto")),
        source_address=text(get("fd.cip")) or text(get("fd.lip")) or text(get("ka.sourceips")),
        source_port=integer(get("fd.cport")) or integer(get("fd.lport")),
        destination_address=text(get("fd.sip")) or text(get("fd.rip")),
        destination_port=integer(get("fd.sport")) or integer(get("fd.rport")),
    )
    return None if part == _NO_NETWORK else part


def _text_event(raw: bytes, position: bytes, host: str | None) -> Event:
    line = as_text(raw)
    match = _LINE.match(line)
    if match is None:
        raise ParseError("not_falco", f"expected a JSON object or 'TIME: Priority message', found {line[:60]!r}")
    context = _appended(match["message"])
    return Event(
        id=event_id(raw, position),
        time=_text_time(match["time"]),
        sensor="falco",
        source="syscall",
        detection=TEXT_DETECTION,
        severity=_SEVERITIES[match["priority"].lower()],
        summary=one_line(match["message"]),
        host=Host(name=host) if host else None,
        container=_container(context),
        kubernetes=_kubernetes(context),
        raw=msgspec.Raw(msgspec.json.encode(line)),
    )


def _appended(message: str) -> dict[str, Any]:
    """The fields that Falco appended to a message, where there is no other place to find them."""
    start = message.rfind(_SUFFIX_START)
    found = _SUFFIX.match(message, start) if start >= 0 else None
    return {} if found is None else {_SUFFIX_FIELDS[name]: value for name, value in found.groupdict().items()}


def _text_time(clock: str) -> str:
    """A text line's time; without a date it is the local time of day nearest to now, and not after it."""
    if "T" in clock:
        return _time(clock)
    whole, _, fraction = clock.partition(".")
    hours, minutes, seconds = (int(part) for part in whole.split(":"))
    now = time.time()
    try:
        moment = datetime.fromtimestamp(now).replace(hour=hours, minute=minutes, second=seconds, microsecond=0)
    except ValueError:
        return timestamps.now()
    if moment.timestamp() > now + 3600:
        moment -= timedelta(days=1)
    return timestamps.from_ns(int(moment.timestamp()) * 1_000_000_000 + int(fraction[:9].ljust(9, "0")))
