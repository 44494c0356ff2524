"""Our Falco rules use what Falco has, keep upstream's style, and shadow nothing of upstream's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "falco_rules").glob("*.yaml"))
FACTS = json.loads((ROOT / "tests/data/falco_fields.json").read_text(encoding="utf-8"))
UPSTREAM = json.loads((ROOT / "tests/data/falco_names.json").read_text(encoding="utf-8"))
PRIORITIES = {"CRITICAL", "ERROR", "WARNING", "NOTICE", "INFORMATIONAL"}
FIELD = re.compile(r"(?<![\w./\"'-])([a-z][a-z0-9]*(?:\.[a-z][a-zA-Z0-9_]*)+)(\[[^\]]*\])?")
IN_OUTPUT = re.compile(r"%([a-z][a-z0-9]*(?:\.[a-zA-Z0-9_]+)+)(\[[^\]]*\])?")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def items(path: Path) -> list[dict[str, Any]]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, list)
    return loaded


def rules(path: Path) -> list[dict[str, Any]]:
    return [item for item in items(path) if "rule" in item]


def macros_of(source: str) -> dict[str, str]:
    path = ROOT / f"falco_rules/{source}.yaml"
    return {item["macro"]: item["condition"] for item in items(path) if "macro" in item}


def source_of(path: Path) -> str:
    return path.stem


def unknown_fields(source: str, found: list[tuple[str, str]]) -> list[str]:
    """The fields that events of the source do not have, or that are used without an argument they need."""
    known = {**FACTS["sources"]["*"], **FACTS["sources"][source]}
    params = {param for event in FACTS["events"].values() for param in event}
    wrong = []
    for name, argument in found:
        base, _, param = name.rpartition(".")
        if base in {"evt.arg", "evt.rawarg"} and source == "syscall":
            if param not in params:
                wrong.append(name)
        elif name not in known or (known[name] == "required" and not argument):
            wrong.append(name + argument)
    return wrong


def test_one_file_per_event_source() -> None:
    """Each file is named after a Falco event source, and its rules are of that source."""
    assert [path.stem for path in FILES if path.stem not in FACTS["sources"]] == []
    for path in FILES:
        assert {rule.get("source", "syscall") for rule in rules(path)} == {source_of(path)}


@every_file
def test_engine_and_plugin_versions_are_required(path: Path) -> None:
    """A file says which engine it needs, and which plugin when its source comes from one."""
    keys = {key: item[key] for item in items(path) for key in item if key.startswith("required_")}
    assert re.fullmatch(r"0\.\d+\.0", keys["required_engine_version"])
    assert ("required_plugin_versions" in keys) == (source_of(path) != "syscall")


@every_file
def test_rules_have_upstreams_key_order(path: Path) -> None:
    """rule, desc, condition, output, priority, tags; then the source where it is a plugin's."""
    wanted = ["rule", "desc", "condition", "output", "priority", "tags"]
    wanted += [] if source_of(path) == "syscall" else ["source"]
    assert [rule["rule"] for rule in rules(path) if list(rule) != wanted] == []


@every_file
def test_macros_and_lists_are_prefixed(path: Path) -> None:
    """Each macro and list starts with ``ads_`` and is defined once over all files."""
    names = [item.get("macro") or item["list"] for item in items(path) if {"macro", "list"} & set(item)]
    assert [name for name in names if not name.startswith("ads_")] == []
    everywhere = [n for other in FILES for item in items(other) for n in (item.get("macro"), item.get("list")) if n]
    assert [name for name in names if everywhere.count(name) > 1] == []


@every_file
def test_nothing_of_falcos_own_is_shadowed(path: Path) -> None:
    """No rule, macro or list has a name that Falco's own rule files use."""
    for kind, key in (("rules", "rule"), ("macros", "macro"), ("lists", "list")):
        taken = {name.casefold() for name in UPSTREAM[kind]}
        own = [item[key] for item in items(path) if key in item]
        assert [name for name in own if name.casefold() in taken] == []


@every_file
def test_macros_and_lists_are_used_and_defined(path: Path) -> None:
    """Each ``ads_`` name that a condition uses is defined above it, and each defined one is used."""
    defined: set[str] = set()
    used: set[str] = set()
    for item in items(path):
        text = QUOTED.sub("''", str(item.get("condition", ""))) + " " + " ".join(map(str, item.get("items", [])))
        names = set(re.findall(r"\bads_\w+", text))
        assert names - defined == set()
        used |= names
        defined |= {item[key] for key in ("macro", "list") if key in item}
    assert defined - used == set()


@every_file
def test_conditions_use_fields_of_the_source(path: Path) -> None:
    """Each field in a rule's or macro's condition exists for the file's event source."""
    for item in items(path):
        text = QUOTED.sub("''", str(item.get("condition", "")))
        wrong = unknown_fields(source_of(path), FIELD.findall(text))
        assert wrong == [], item


@every_file
def test_outputs_use_fields_of_the_source(path: Path) -> None:
    """Each field in a rule's output exists for the file's event source."""
    for rule in rules(path):
        assert unknown_fields(source_of(path), IN_OUTPUT.findall(rule["output"])) == [], rule["rule"]


@every_file
def test_conditions_name_event_types_that_exist(path: Path) -> None:
    """Each system call that a condition names is an event of the engine."""
    for item in items(path):
        found = re.findall(r"evt\.type\s*(?:=|in)\s*(\([^)]*\)|\w+)", str(item.get("condition", "")))
        names = {name for group in found for name in re.findall(r"\w+", group)}
        assert names - set(FACTS["events"]) == set()


@every_file
def test_outputs_speak_to_people_and_to_machines(path: Path) -> None:
    """``Text | key=%field key=%field``: a sentence, then each field once under a key of its own."""
    for rule in rules(path):
        text, _, pairs = rule["output"].partition(" | ")
        assert re.fullmatch(r"[A-Z][\w ]+", text), rule["rule"]
        keys = [pair.split("=%")[0] for pair in pairs.split()]
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*=%\S+", pair) for pair in pairs.split()), rule["rule"]
        assert len(keys) == len(set(keys)), rule["rule"]


@every_file
def test_tags_have_upstreams_forms(path: Path) -> None:
    """Maturity first, then words, a MITRE tactic, technique numbers, and one strategy at the end."""
    for rule in rules(path):
        tags = rule["tags"]
        assert re.fullmatch(r"maturity_(stable|incubating|sandbox)", tags[0])
        assert sum(tag.startswith("mitre_") for tag in tags) == 1
        assert any(re.fullmatch(r"T\d{4}(\.\d{3})?", tag) for tag in tags)
        assert re.fullmatch(r"ads_\d{4}", tags[-1])
        assert rule["priority"] in PRIORITIES


@every_file
def test_deprecated_direction_field_is_not_used(path: Path) -> None:
    """evt.dir makes newer engines warn, and without enter events it is always the same."""
    assert [item for item in items(path) if "evt.dir" in str(item.get("condition", ""))] == []


def test_every_syscall_rule_tells_whose_container_it_was() -> None:
    """A responder finds the process, its parent, the container, the image and the pod in each alert."""
    wanted = {
        "%proc.cmdline",
        "%proc.pcmdline",
        "%proc.pid",
        "%container.id",
        "%container.name",
        "%container.image.repository",
        "%k8s.ns.name",
        "%k8s.pod.name",
    }
    for rule in rules(ROOT / "falco_rules/syscall.yaml"):
        fields = {"%" + field for field, _ in IN_OUTPUT.findall(rule["output"])}
        assert wanted - fields == set(), rule["rule"]


SCANS = [
    ("-sS 10.0.0.0/24", True),
    ("-p 22,80 10.0.0.0/24", True),
    ("-p- 10.0.0.1-254", True),
    ("-Pn 192.168.0.0/16 -oA out", True),
    ("10.0.0.0/8 -p80,443 --rate 100000", True),
    ("--rate=1000 -p0-65535 172.16.0.0/12", True),
    ("--top-ports 100 db", True),
    ("-iL targets --min-rate 500", True),
    ("-sn 10.1.2.0/24", True),
    ("-sS https://example.test/10.0.0.0/x", False),
    ("-s 10.0.0.0/8 -p tcp --dport 22 -j ACCEPT", False),
    ("--cluster-cidr=10.244.0.0/16 --port 10256", False),
    ("-p 5432 -h db.example.test", False),
    ("route add 10.0.0.0/24 via 10.0.0.1", False),
    ("-p 8080 10.0.0.5/32", False),
    ("-p 22 admin@10.0.0.5", False),
    ("install -p 1 package-1.2.3.4-5", False),
]


@pytest.mark.parametrize(("arguments", "is_scan"), SCANS)
def test_scan_arguments_are_told_from_ordinary_ones(arguments: str, is_scan: bool) -> None:
    """The argument grammar takes scans of ranges, and leaves packet filters, proxies and clients alone."""
    macros = macros_of("syscall")
    assert "ads_scan_arguments" in macros

    def holds(macro: str) -> bool:
        text = macros[macro]
        patterns = re.findall(r"proc\.args regex '([^']*)'", text)
        words = re.findall(r'proc\.args contains "([^"]*)"', text)
        return any(re.fullmatch(p, arguments) for p in patterns) or any(word in arguments for word in words)

    verdict = holds("ads_args_name_scanner_option") or (holds("ads_args_name_range") and holds("ads_args_name_scan"))
    assert verdict is is_scan


MEMORY_FILES = [
    ("/proc/17/mem", True),
    ("/proc/17/task/18/mem", True),
    ("/host/proc/1/mem", True),
    ("/proc/self/root/proc/9/mem", True),
    ("/proc/self/mem", False),
    ("/proc/thread-self/mem", False),
    ("/proc/meminfo", False),
    ("/proc/17/maps", False),
    ("/dev/mem", False),
]


@pytest.mark.parametrize(("name", "matches"), MEMORY_FILES)
def test_memory_files_are_recognised_at_any_mount_point(name: str, matches: bool) -> None:
    """The path pattern takes each process's and thread's memory file except a process's own."""
    macros = macros_of("syscall")
    pattern = re.search(r"fd\.name regex '([^']*)'", macros["ads_process_memory_file"])
    assert pattern is not None
    assert bool(re.fullmatch(pattern[1], name)) is matches


CIDRS = [
    ('{"cidrIp":"0.0.0.0/0"}', True),
    ('{"items":[{"cidrIp":"10.0.0.0/8"},{"cidrIp":"128.0.0.0/1"}]}', True),
    ('{"ipv6Ranges":{"items":[{"cidrIpv6":"::/0"}]}}', True),
    ('{"SecurityGroupRule":{"CidrIpv4":"0.0.0.0/0"}}', True),
    ('{"cidrBlock":"0.0.0.0/0"}', True),
    ('{"ipv6CidrBlock":"2000::/3"}', True),
    ('{"cidrIp":"10.0.0.0/8"}', False),
    ('{"cidrIp":"192.0.2.7/32","description":"not 0.0.0.0/0"}', False),
    ('{"cidrIpv6":"2001:db8::/32"}', False),
]


@pytest.mark.parametrize(("request_text", "is_world"), CIDRS)
def test_the_world_is_recognised_wherever_it_stands(request_text: str, is_world: bool) -> None:
    """A block of prefix length 0 to 7 counts in each form of request, and smaller ones and prose do not."""
    macros = macros_of("aws_cloudtrail")
    pattern = re.search(r"regex '(.*)'", macros["ads_aws_request_names_world"])
    assert pattern is not None
    assert bool(re.fullmatch(pattern[1], request_text)) is is_world
