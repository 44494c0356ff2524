"""Strategies: their mistakes are told with file, line and column, and each event is tagged with the right one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from adsbridge import config, strategy
from adsbridge.errors import ConfigError, ContentError
from adsbridge.events import Event, Severity
from adsbridge.strategy import SECTIONS, Strategies

HEAD = """\
id: ADS-9001
title: A process does something
status: stable
priority: high
techniques:
  - {id: T1046, name: Network Service Discovery, tactic: discovery}
  - {id: T1562.007, name: Disable or Modify Cloud Firewall, tactic: defense-evasion}
platforms: [linux]
detections:
  - falco: Some Rule
  - falco: Other Rule
    techniques: [T1046]
    severity: low
  - osquery: some_query
    pack: some_pack
first_steps: [Look]
validation:
  - {name: a, needs: b, run: c, expect: [Some Rule]}
"""
BODY = "\n# Title\n\n" + "\n".join(f"## {section}\n\nText.\n" for section in SECTIONS)


def write(folder: Path, head: str = HEAD, body: str = BODY, name: str = "ADS-9001-something.md") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"---\n{head}---\n{body}", encoding="utf-8")
    return path


def wrong(path: Path) -> list[str]:
    """The mistakes in a strategy's file, each as ``line:column: text``."""
    with pytest.raises(ContentError) as raised:
        strategy.read(path)
    return [line.removeprefix(f"{path}:") for line in str(raised.value).splitlines()]


def strategies(tmp_path: Path, head: str = HEAD, link: str = "strategies/{file}") -> Strategies:
    return Strategies([strategy.read(write(tmp_path, head))], link)


def event(detection: str = "Some Rule", sensor: str = "falco", **more: Any) -> Event:
    fields = {
        "id": "0" * 32,
        "time": "2026-11-21T20:27:53Z",
        "source": "syscall",
        "severity": Severity.MEDIUM,
        "summary": "s",
    }
    return Event(**{**fields, "detection": detection, "sensor": sensor, **more})


def test_a_strategy_is_read(tmp_path: Path) -> None:
    """Front matter becomes its fields, and the document below it its body; CRLF and a BOM do no harm."""
    path = write(tmp_path)
    assert strategy.read(path).title == "A process does something"
    assert "## Response" in strategy.read(path).body
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert strategy.read(path).id == "ADS-9001"


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """Wrong values, unknown keys and sections out of order are told together, each at its line and column."""
    head = HEAD.replace("ADS-9001", "ADS-1").replace("status: stable", "status: done").replace("T1046,", "1046,")
    head = head.replace("pack: some_pack", "pakc: some_pack").replace("first_steps: [Look]", "first_steps: []")
    head = head.replace("title: A process", "titel: A process")
    body = BODY.replace("## Strategy Abstract", "## Abstract")
    abstract = head.count("\n") + 3 + body[: body.index("## Abstract")].count("\n")
    expected = [
        r"2:5: id: expected the form \^ADS-\\d\{4\}\$",
        r"3:1: titel: unknown key; did you mean 'title'\?",
        r"2:1: title: is missing",
        r"4:9: status: expected 'experimental', 'stable' or 'deprecated'",
        r"7:10: techniques.0.id: expected text, found a number; put it in quotes",
        r"16:5: detections.2.pakc: unknown key; did you mean 'pack'\?",
        r"17:1: first_steps: expected at least 1 in the list",
        rf"{abstract}:1: expected '## Strategy Abstract' here, found '## Abstract'",
    ]
    found = wrong(write(tmp_path, head, body))
    assert len(found) == len(expected)
    for pattern in expected:
        assert any(re.fullmatch(pattern, one) for one in found), (pattern, found)


SINGLE = [
    (
        HEAD.replace("  - falco: Some Rule", "  - {}"),
        "11:5: detections.0: expected either 'falco: RULE' or 'osquery: QUERY'",
    ),
    (
        HEAD.replace("- falco: Some Rule", "- {falco: a, osquery: b}"),
        "11:5: detections.0: expected either 'falco: RULE' or 'osquery: QUERY'",
    ),
    (
        HEAD.replace("techniques: [T1046]", "techniques: [T1046, T9999]"),
        "13:5: detections.1.techniques: T9999 is not among the strategy's techniques",
    ),
    (
        HEAD.replace("id: T1046", "id: TA0007"),
        "7:10: techniques.0.id: expected a technique's id like T1046 or T1003.007",
    ),
    (HEAD.replace("priority: high", "priority: urgent"), "5:11: priority: expected 'critical', 'high', 'medium',"),
    (HEAD.replace("platforms: [linux]\n", ""), "2:1: platforms: is missing"),
    (HEAD + "path: x\n", "20:1: path: unknown key"),
    (HEAD + "id: ADS-9002\n", "20:1: id: is on line 2 already; keep one"),
    (HEAD + "x: [\n", "21:1: cannot be read as YAML: while parsing a flow node"),
    ("- a\n", "2:1: expected keys like id, title and detections"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "expected"), SINGLE)
def test_mistakes_in_the_front_matter(tmp_path: Path, head: str, expected: str) -> None:
    """Each kind of mistake names the line and column in the file, not in the front matter."""
    found = wrong(write(tmp_path, head))
    assert any(one.startswith(expected) for one in found), found


@pytest.mark.parametrize("text", ["", "# Title\n", "---\nid: ADS-9001\n", "id: ADS-9001\n---\n"])
def test_front_matter_must_be_there(tmp_path: Path, text: str) -> None:
    """A file without front matter between two lines of dashes says what is expected."""
    path = tmp_path / "a.md"
    path.write_text(text)
    assert wrong(path) == ["1:1: expected YAML front matter between two lines of '---'"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are told; so is a missing file."""
    path = tmp_path / "a.md"
    path.write_bytes(b"---\n\xff\n---\n")
    assert wrong(path) == ["1:1: cannot read: is not UTF-8"]
    assert wrong(tmp_path / "b.md") == ["1:1: cannot read: No such file or directory"]


SECTION_MISTAKES = [
    (BODY.replace("## Goal\n", ""), "expected '## Goal' here, found '## Categorization'"),
    (
        BODY.replace("## Goal", "## Swapped").replace("## Response", "## Goal"),
        "expected '## Goal' here, found '## Swapped'",
    ),
    (BODY[: BODY.index("## Additional")], "expected '## Additional Resources'; the file ends without it"),
    (BODY + "## More\n", "expected no further section here, found '## More'"),
    (BODY + "## Goal\n", "expected no further section here, found '## Goal'"),
    ("", "expected '## Goal'; the file ends without it"),
]


@pytest.mark.parametrize(("body", "expected"), SECTION_MISTAKES)
def test_sections_stand_in_palantirs_order(tmp_path: Path, body: str, expected: str) -> None:
    """A section that is missing, superfluous or out of place is told on the line where the next one was expected."""
    path = write(tmp_path, body=body)
    (found,) = wrong(path)
    line, column, text = found.split(":", 2)
    assert (column, text.strip()) == ("1", expected)
    if "found" in expected:
        assert path.read_text().splitlines()[int(line) - 1] in expected


def test_a_detection_belongs_to_one_strategy(tmp_path: Path) -> None:
    """A rule named twice, in one file or in two, and an id used twice are told at the second place, all at once."""
    own = HEAD + ""
    own = own.replace("  - falco: Other Rule", "  - falco: Some Rule\n  - falco: Other Rule")
    first = strategy.read(write(tmp_path, own, name="a.md"))
    second = strategy.read(write(tmp_path, HEAD, name="b.md"))
    with pytest.raises(ContentError) as raised:
        Strategies([first, second])
    assert str(raised.value).splitlines() == [
        f"{tmp_path}/a.md:12:5: falco 'Some Rule' stands at {tmp_path}/a.md:11:5 already; keep one",
        f"{tmp_path}/b.md:2:5: ADS-9001 stands at {tmp_path}/a.md:2:5 already; keep one",
        f"{tmp_path}/b.md:11:5: falco 'Some Rule' stands at {tmp_path}/a.md:11:5 already; keep one",
        f"{tmp_path}/b.md:12:5: falco 'Other Rule' stands at {tmp_path}/a.md:13:5 already; keep one",
        f"{tmp_path}/b.md:15:5: osquery 'some_query' stands at {tmp_path}/a.md:16:5 already; keep one",
    ]


def test_a_rule_and_a_query_may_have_the_same_name(tmp_path: Path) -> None:
    """Names are per sensor: the same name for a Falco rule and an osquery query is no conflict."""
    known = strategies(tmp_path, HEAD.replace("osquery: some_query", "osquery: Some Rule"))
    assert known.find("falco", "Some Rule") != known.find("osquery", "Some Rule")
    assert known.find("falco", "some_query") is None


PACKED = [
    ("some_query", True),
    ("pack_some_pack_some_query", True),
    ("pack/some_pack/some_query", True),
    ("pack:some_pack:some_query", True),
    ("pack--some_pack--some_query", True),
    ("pack some_pack some_query", True),
    ("pack_other_some_query", False),
    ("pack_some_pack/some_query", False),
    ("packsome_packsome_query", False),
    ("pack_some_pack_some_query_2", False),
    ("some_pack_some_query", False),
    ("pack", False),
    ("", False),
]


@pytest.mark.parametrize(("name", "belongs"), PACKED)
def test_a_packs_query_is_found_with_any_delimiter(tmp_path: Path, name: str, *, belongs: bool) -> None:
    """A name ``pack<delimiter>PACK<delimiter>QUERY`` belongs to the strategy that names QUERY in PACK."""
    assert (strategies(tmp_path).find("osquery", name) is not None) is belongs


def test_a_query_named_without_its_pack_is_found_by_its_own_name_only(tmp_path: Path) -> None:
    """Without ``pack``, a query of the same name in some pack is another query."""
    known = strategies(tmp_path, HEAD.replace("    pack: some_pack\n", ""))
    assert known.find("osquery", "some_query") is not None
    assert known.find("osquery", "pack_some_pack_some_query") is None


def test_an_alert_carries_its_strategy(tmp_path: Path) -> None:
    """Id, title, priority, first steps, link and every technique of the strategy, each with its successor."""
    alert = strategies(tmp_path).tag(event(tags=["T1018", "mitre_discovery"]))
    assert alert.strategy is not None
    assert (alert.strategy.id, alert.strategy.priority) == ("ADS-9001", Severity.HIGH)
    assert alert.strategy.first_steps == ["Look"]
    assert alert.strategy.link == "strategies/ADS-9001-something.md"
    assert [(one.id, one.tactic, one.successor) for one in alert.attack] == [
        ("T1046", "discovery", None),
        ("T1562.007", "defense-evasion", "T1686.001"),
    ]


def test_a_detection_may_narrow_techniques_and_set_its_severity(tmp_path: Path) -> None:
    """A detection's own techniques and severity win over the strategy's and the sensor's."""
    alert = strategies(tmp_path).tag(event("Other Rule"))
    assert [one.id for one in alert.attack] == ["T1046"]
    assert alert.severity is Severity.LOW


def test_severity_without_a_word_of_the_detection(tmp_path: Path) -> None:
    """Falco's priority stands; osquery has none, so the strategy's does, but not for what went or was there before."""
    known = strategies(tmp_path)
    assert known.tag(event(severity=Severity.CRITICAL)).severity is Severity.CRITICAL
    for action, expected in {"added": "high", "snapshot": "high", "removed": "informational", "initial": "low"}.items():
        given = {"removed": Severity.INFORMATIONAL}.get(action, Severity.LOW)
        alert = known.tag(event("some_query", "osquery", source="result", action=action, severity=given))
        assert alert.severity == expected, action


def test_what_disappears_is_not_as_severe_as_what_appears(tmp_path: Path) -> None:
    """Even when the detection sets a severity, a removed row keeps the low one that the parser gave it."""
    known = strategies(tmp_path, HEAD.replace("pack: some_pack", "pack: some_pack\n    severity: critical"))
    removed = event("some_query", "osquery", source="result", action="removed", severity=Severity.INFORMATIONAL)
    assert known.tag(removed).severity is Severity.INFORMATIONAL
    added = event("some_query", "osquery", source="result", action="added", severity=Severity.LOW)
    assert known.tag(added).severity is Severity.CRITICAL


def test_what_no_strategy_claims_takes_its_techniques_from_the_tags(tmp_path: Path) -> None:
    """Without a strategy, ids among Falco's tags become techniques; the tactic where only one is named."""
    known = strategies(tmp_path)
    one = known.tag(
        event("Unknown", tags=["T1046", "container", "mitre_lateral_movement", "T1562.004", "t1018", "T12345"])
    )
    assert one.strategy is None
    assert [(found.id, found.tactic, found.successor) for found in one.attack] == [
        ("T1046", "lateral-movement", None),
        ("T1562.004", "lateral-movement", "T1686"),
    ]
    two = known.tag(event("Unknown", tags=["T1046", "mitre_discovery", "mitre_execution"]))
    assert [found.tactic for found in two.attack] == [None]
    assert known.tag(event("Unknown")).attack == []


def test_the_link_is_a_template(tmp_path: Path) -> None:
    """``{id}`` and ``{file}`` are filled in, as often as they stand there."""
    known = strategies(tmp_path, link="https://wiki/{id}#{id}?f={file}")
    alert = known.tag(event())
    assert alert.strategy is not None
    assert alert.strategy.link == "https://wiki/ADS-9001#ADS-9001?f=ADS-9001-something.md"


CONFIG = """\
sources: {{falco: {{type: falco_http}}}}
sinks: {{out: {{type: console}}}}
strategies:
  folders: [{folder}]
routes:
  - {{name: a, match: {{strategy: ADS-9001}}, sinks: [out]}}
"""


def test_further_folders_add_strategies(tmp_path: Path) -> None:
    """A folder in the configuration adds to the strategies that adsbridge brings, and routes know them."""
    write(tmp_path / "own")
    (tmp_path / "own" / "notes.txt").write_text("no strategy")
    loaded = config.parse(CONFIG.format(folder=tmp_path / "own"))
    assert {"ADS-0001", "ADS-0002", "ADS-0003", "ADS-9001"} <= loaded.strategies.all.keys()


def test_mistakes_in_further_folders_are_mistakes_of_the_configuration(tmp_path: Path) -> None:
    """Each mistake in each file is told, at the key that names the folder, and nothing that only follows from it."""
    write(tmp_path / "own", HEAD.replace("ADS-9001", "x"), name="a.md")
    write(tmp_path / "own", HEAD.replace("title:", "titel:"), name="b.md")
    with pytest.raises(ConfigError) as raised:
        config.parse(CONFIG.format(folder=tmp_path / "own"), "c.yaml")
    own = tmp_path / "own"
    assert raised.value.mistakes == [
        f"c.yaml:3:1: strategies: {own}/a.md:2:5: id: expected the form ^ADS-\\d{{4}}$",
        f"c.yaml:3:1: strategies: {own}/b.md:2:1: title: is missing",
        f"c.yaml:3:1: strategies: {own}/b.md:3:1: titel: unknown key; did you mean 'title'?",
    ]


def test_a_strategy_of_ours_cannot_be_claimed_again(tmp_path: Path) -> None:
    """A further folder that uses one of our ids or rules is told, rather than one of the two winning silently."""
    head = HEAD.replace("ADS-9001", "ADS-0001").replace("Some Rule", "Launch Suspicious Network Tool in Container")
    write(tmp_path / "own", head)
    with pytest.raises(ConfigError) as raised:
        config.parse(CONFIG.format(folder=tmp_path / "own").replace("ADS-9001", "ADS-0001"), "c.yaml")
    assert len(raised.value.mistakes) == 2
    assert all("already; keep one" in one for one in raised.value.mistakes)
