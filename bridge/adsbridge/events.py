"""Event and Alert: the types that cross module borders.

An event is what a sensor reported, in one shape for all sensors. An alert is an event with the strategy
that it belongs to. Field descriptions stand here once; the documentation table is made from them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct


class Severity(StrEnum):
    """How bad it is, from worst to least."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFORMATIONAL = "informational"

    @property
    def rank(self) -> int:
        """4 for critical down to 0 for informational."""
        return _RANKS[self]


_RANKS = {severity: 4 - place for place, severity in enumerate(Severity)}


def _says(description: str) -> Meta:
    return Meta(description=description)


class _Part(Struct, omit_defaults=True, gc=False):
    """A part of an alert; what is unknown is left out of its JSON."""


class Host(_Part):
    """The machine that the sensor runs on."""

    name: Annotated[str | None, _says("Host name, as the sensor gives it")] = None
    id: Annotated[str | None, _says("osquery's hardware or instance UUID, where known")] = None


class Process(_Part):
    """The process that did it."""

    pid: Annotated[int | None, _says("Process id in the host's PID namespace")] = None
    ppid: Annotated[int | None, _says("Parent's process id")] = None
    name: Annotated[str | None, _says("Name of the executable")] = None
    executable: Annotated[str | None, _says("Path of the executable")] = None
    command_line: Annotated[str | None, _says("Command line with its arguments")] = None
    parent: Annotated[str | None, _says("Name of the parent process")] = None
    working_directory: Annotated[str | None, _says("Working directory")] = None
    user: Annotated[str | None, _says("User name, or for audit logs the acting principal")] = None
    uid: Annotated[int | None, _says("User id")] = None
    login_uid: Annotated[int | None, _says("Audit login user id; left out when unset")] = None


class Container(_Part):
    """The container that it happened in; absent on the host."""

    id: Annotated[str | None, _says("Container id, as the sensor gives it (Falco: 12 characters)")] = None
    name: Annotated[str | None, _says("Container name")] = None
    image: Annotated[str | None, _says("Image repository, without tag")] = None
    tag: Annotated[str | None, _says("Image tag")] = None
    digest: Annotated[str | None, _says("Image digest")] = None
    runtime: Annotated[str | None, _says("docker, containerd, cri-o, podman, …")] = None


class Kubernetes(_Part):
    """The workload that it happened to."""

    namespace: Annotated[str | None, _says("Namespace")] = None
    pod: Annotated[str | None, _says("Pod name")] = None
    resource: Annotated[str | None, _says("Audited resource kind, e.g. pods")] = None
    name: Annotated[str | None, _says("Audited resource's name")] = None
    verb: Annotated[str | None, _says("Audited verb, e.g. create")] = None


class Network(_Part):
    """The connection that it is about."""

    protocol: Annotated[str | None, _says("tcp, udp, icmp, …")] = None
    source_address: Annotated[str | None, _says("Client's or local address")] = None
    source_port: Annotated[int | None, _says("Client's or local port")] = None
    destination_address: Annotated[str | None, _says("Server's or remote address")] = None
    destination_port: Annotated[int | None, _says("Server's or remote port")] = None


class StrategyRef(_Part):
    """The strategy that claims the detection."""

    id: Annotated[str, _says("ADS-NNNN")]
    title: Annotated[str, _says("What the strategy detects, in one line")]
    priority: Annotated[Severity, _says("The strategy's priority")]
    first_steps: Annotated[list[str], _says("What to do first, in order")]
    link: Annotated[str, _says("Where the strategy's full response stands")]


class Attack(_Part):
    """An ATT&CK technique."""

    id: Annotated[str, _says("Technique id, as the strategy or the rule gives it")]
    name: Annotated[str | None, _says("Technique name")] = None
    tactic: Annotated[str | None, _says("Tactic, in ATT&CK's slug form")] = None
    successor: Annotated[str | None, _says("The id that replaced it, if ATT&CK revoked it")] = None


class Event(Struct, omit_defaults=True, gc=False):
    """What a sensor reported."""

    id: Annotated[str, _says("Derived from the record and its position: the same record has the same id each time")]
    time: Annotated[str, _says("When it happened: RFC 3339, UTC, nanoseconds")]
    sensor: Annotated[str, _says("falco or osquery")]
    source: Annotated[str, _says("Falco's event source (syscall, k8s_audit, …); osquery: result, snapshot or status")]
    detection: Annotated[str, _says("Falco rule or osquery query that fired")]
    severity: Annotated[Severity, _says("critical, high, medium, low or informational")]
    summary: Annotated[str, _says("What happened, in one line without control characters")]
    action: Annotated[
        str | None,
        _says("osquery: added, removed, snapshot, or initial for a query's first full result set"),
    ] = None
    host: Annotated[Host | None, _says("The machine")] = None
    process: Annotated[Process | None, _says("The process")] = None
    container: Annotated[Container | None, _says("The container; absent on the host")] = None
    kubernetes: Annotated[Kubernetes | None, _says("The workload")] = None
    network: Annotated[Network | None, _says("The connection")] = None
    tags: Annotated[list[str], _says("The sensor's tags")] = []
    decorations: Annotated[dict[str, Any], _says("osquery's decorations")] = {}
    fields: Annotated[dict[str, Any], _says("The sensor's own fields, typed")] = {}
    raw: Annotated[
        Raw, _says("The record as it came: JSON as it stands, text as a string; a row for osquery batches")
    ] = Raw(b"null")


class Alert(Event, omit_defaults=True, gc=False):
    """An event with what the bridge knows of it; what sinks receive."""

    strategy: Annotated[StrategyRef | None, _says("The strategy that claims the detection")] = None
    attack: Annotated[list[Attack], _says("ATT&CK techniques")] = []
    labels: Annotated[dict[str, str], _says("Labels from the configuration (team, environment, …)")] = {}
    enrichment: Annotated[
        dict[str, str], _says("What an enricher could not find out, and why, e.g. container: timeout")
    ] = {}


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Alert)
encode = _encoder.encode
"""Alert to its native JSON."""
encode_lines = _encoder.encode_lines
"""Alerts to their native JSON, a line each."""


def decode(payload: bytes) -> Alert:
    """Native JSON back to an alert.

    Raises:
        msgspec.ValidationError: the JSON is not an alert's.
    """
    return _decoder.decode(payload)


def to_alert(event: Event) -> Alert:
    """The alert of an event, not yet tagged."""
    return Alert(*msgspec.structs.astuple(event))
