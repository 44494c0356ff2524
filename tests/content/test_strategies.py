"""The strategies are complete, and agree with the rules and queries that they name."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from adsbridge import packs

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "strategies").glob("*.md"))
SECTIONS = [
    "Goal",
    "Categorization",
    "Strategy Abstract",
    "Technical Context",
    "Blind Spots and Assumptions",
    "False Positives",
    "Validation",
    "Priority",
    "Response",
    "Additional Resources",
]
KEYS = [
    "id",
    "title",
    "status",
    "priority",
    "techniques",
    "platforms",
    "detections",
    "first_steps",
    "validation",
]
SEVERITIES = {"critical", "high", "medium", "low", "informational"}


def front_matter(path: Path) -> dict[str, Any]:
    _, head, _ = path.read_text(encoding="utf-8").split("---\n", 2)
    data = yaml.safe_load(head)
    assert isinstance(data, dict)
    return data


def sections(path: Path) -> list[tuple[str, str]]:
    body = path.read_text(encoding="utf-8").split("---\n", 2)[2]
    parts = re.split(r"^## (.+)$", body, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def name_of(detection: dict[str, Any]) -> str:
    name = detection.get("falco") or detection.get("osquery")
    assert isinstance(name, str)
    return name


STRATEGIES = {path: front_matter(path) for path in FILES}
QUERIES = {query.name: query for query in packs.load_packs(ROOT / "packs")}
OWN_RULES = {
    item["rule"]: item
    for path in sorted((ROOT / "falco_rules").glob("*.yaml"))
    for item in yaml.safe_load(path.read_text(encoding="utf-8"))
    if "rule" in item
}
UPSTREAM = yaml.safe_load((ROOT / "tests/data/falco_names.json").read_text(encoding="utf-8"))

every_strategy = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_three_first_strategies_exist() -> None:
    """ADS-0001 to ADS-0003 are there, each in a file that starts with its id."""
    ids = [data["id"] for data in STRATEGIES.values()]
    assert ids[:3] == ["ADS-0001", "ADS-0002", "ADS-0003"]
    assert all(path.name.startswith(data["id"] + "-") for path, data in STRATEGIES.items())


@every_strategy
def test_front_matter_has_exactly_the_keys_of_the_schema(path: Path) -> None:
    """Each key is there once, in the documented order, and no other."""
    assert list(STRATEGIES[path]) == KEYS


@every_strategy
def test_front_matter_values_have_their_form(path: Path) -> None:
    """Ids, words from fixed lists, techniques and steps have the form that alerts rely on."""
    data = STRATEGIES[path]
    assert re.fullmatch(r"ADS-\d{4}", data["id"])
    assert data["status"] in {"experimental", "stable", "deprecated"}
    assert data["priority"] in SEVERITIES
    assert data["platforms"]
    assert all(isinstance(platform, str) for platform in data["platforms"])
    for technique in data["techniques"]:
        assert list(technique) == ["id", "name", "tactic"]
        assert re.fullmatch(r"T\d{4}(\.\d{3})?", technique["id"])
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", technique["tactic"])
    assert 3 <= len(data["first_steps"]) <= 5
    for step in data["first_steps"]:
        assert isinstance(step, str)
        assert "\n" not in step


@every_strategy
def test_detections_have_their_form(path: Path) -> None:
    """A detection is a Falco rule or an osquery query with its pack; techniques are the strategy's own."""
    known = {technique["id"] for technique in STRATEGIES[path]["techniques"]}
    for detection in STRATEGIES[path]["detections"]:
        assert set(detection) <= {"falco", "osquery", "pack", "techniques", "severity"}
        assert ("falco" in detection) != ("osquery" in detection)
        assert ("osquery" in detection) == ("pack" in detection)
        assert set(detection.get("techniques", known)) <= known
        assert detection.get("severity", "low") in SEVERITIES


@every_strategy
def test_sections_are_palantirs_in_order_and_not_empty(path: Path) -> None:
    """Each section of the ADS framework is there once, in order, with text in it."""
    found = sections(path)
    assert [title for title, _ in found] == SECTIONS
    assert [title for title, text in found if len(text.split()) < 10] == []


@every_strategy
def test_each_technique_is_explained(path: Path) -> None:
    """The Categorization speaks of each technique of the front matter."""
    text = dict(sections(path))["Categorization"]
    assert [t["id"] for t in STRATEGIES[path]["techniques"] if t["id"] not in text] == []


@every_strategy
def test_validation_has_two_true_positives_of_the_strategy(path: Path) -> None:
    """Each validation has commands and expects detections that the strategy names."""
    data = STRATEGIES[path]
    own = {name_of(detection) for detection in data["detections"]}
    assert len(data["validation"]) >= 2
    for validation in data["validation"]:
        assert list(validation) == ["name", "needs", "run", "expect"]
        assert validation["run"].strip()
        assert validation["expect"]
        assert [name for name in validation["expect"] if name not in own] == []


@every_strategy
def test_each_own_detection_is_expected_by_a_validation(path: Path) -> None:
    """No own rule or query of a strategy goes without a true positive."""
    data = STRATEGIES[path]
    expected = {name for validation in data["validation"] for name in validation["expect"]}
    own = {name_of(d) for d in data["detections"] if "osquery" in d or d.get("falco") in OWN_RULES}
    assert own - expected == set()


@pytest.mark.parametrize("key", ["id", "title"])
def test_ids_and_titles_are_unique(key: str) -> None:
    """Two strategies never share an id or a title."""
    count = Counter(str(data[key]).casefold() for data in STRATEGIES.values())
    assert [value for value, times in count.items() if times > 1] == []


def test_a_detection_belongs_to_one_strategy() -> None:
    """No rule or query is named twice, neither by two strategies nor by one."""
    count = Counter(name_of(d).casefold() for data in STRATEGIES.values() for d in data["detections"])
    assert [name for name, times in count.items() if times > 1] == []


def test_osquery_detections_are_queries_of_their_pack() -> None:
    """Each query that a strategy names exists, in that pack, for that strategy, with the same severity."""
    for data in STRATEGIES.values():
        for detection in data["detections"]:
            if "osquery" in detection:
                query = QUERIES[detection["osquery"]]
                assert (query.pack, query.strategy) == (detection["pack"], data["id"])
                assert query.severity == detection["severity"]


def test_every_query_is_named_by_its_strategy() -> None:
    """A query's header and its strategy's front matter agree."""
    named = {(data["id"], d.get("osquery")) for data in STRATEGIES.values() for d in data["detections"]}
    assert [query.name for query in QUERIES.values() if (query.strategy, query.name) not in named] == []


def test_falco_detections_are_rules_of_ours_or_of_falcos() -> None:
    """A strategy names no Falco rule that does not exist."""
    known = set(OWN_RULES) | set(UPSTREAM["rules"])
    named = {d["falco"] for data in STRATEGIES.values() for d in data["detections"] if "falco" in d}
    assert named - known == set()


def test_every_own_rule_is_named_by_the_strategy_of_its_tag() -> None:
    """An own rule carries one ``ads_NNNN`` tag, and that strategy names it."""
    owner = {d.get("falco"): data["id"] for data in STRATEGIES.values() for d in data["detections"]}
    for name, rule in OWN_RULES.items():
        tags = [tag for tag in rule["tags"] if re.fullmatch(r"ads_\d{4}", tag)]
        assert [tag.upper().replace("_", "-") for tag in tags] == [owner.get(name)], name


def test_own_rules_tags_and_strategies_agree_on_techniques() -> None:
    """The T-numbers of an own rule's tags are among those that its strategy gives the detection."""
    for data in STRATEGIES.values():
        everything = [technique["id"] for technique in data["techniques"]]
        for detection in data["detections"]:
            rule = OWN_RULES.get(detection.get("falco", ""))
            if rule is not None:
                tagged = {tag for tag in rule["tags"] if re.fullmatch(r"T\d{4}(\.\d{3})?", tag)}
                assert tagged
                assert tagged <= set(detection.get("techniques", everything)), detection["falco"]
