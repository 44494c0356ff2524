"""ATT&CK ids that were revoked, and what replaced them.

Version 19 (April 2026) split Defense Evasion into Stealth and Defense Impairment and revoked the T1562
family. Sensors, rules and SIEMs still use the old ids, so an alert carries both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from adsbridge.events import Attack

SUCCESSORS = {
    "T1562.001": "T1685",
    "T1562.004": "T1686",
    "T1562.007": "T1686.001",
    "T1562.008": "T1685.002",
    "T1562.012": "T1685.004",
}
"""Revoked id -> its successor; https://attack.mitre.org/resources/updates/."""

_ID = re.compile(r"T\d{4}(?:\.\d{3})?\Z")
_TACTIC = "mitre_"


def technique(identity: str, name: str | None = None, tactic: str | None = None) -> Attack:
    """A technique with its successor, if it has one."""
    return Attack(id=identity, name=name, tactic=tactic, successor=SUCCESSORS.get(identity))


@lru_cache(maxsize=1024)
def from_tags(tags: tuple[str, ...]) -> tuple[Attack, ...]:
    """The techniques that a Falco rule's tags name; the tactic too where only one is named."""
    tactics = [tag.removeprefix(_TACTIC).replace("_", "-") for tag in tags if tag.startswith(_TACTIC)]
    tactic = tactics[0] if len(tactics) == 1 else None
    return tuple(technique(tag, tactic=tactic) for tag in tags if is_technique(tag))


def is_technique(text: str) -> bool:
    """Whether the text has the form of a technique's id."""
    return _ID.match(text) is not None


def ids(attacks: Iterable[Attack]) -> set[str]:
    """Every id by which the techniques are known, successors included."""
    return {known for attack in attacks for known in (attack.id, attack.successor) if known}
