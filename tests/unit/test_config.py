"""The configuration: every mistake at once, each at its own file:line:column, in words that help."""

from __future__ import annotations

import base64
import os
import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adsbridge import config, starter
from adsbridge.errors import ConfigError

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
GOOD = """\
sources:
  falco: {type: falco_http, listen: "127.0.0.1:0"}
  osquery: {type: osquery_log, path: /var/log/osquery/osqueryd.results.log}
sinks:
  soc: {type: webhook, url: "https://soc.example.com/alerts"}
  out: {type: console}
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TEST_")]:
        monkeypatch.delenv(name)


def mistakes(text: str) -> list[str]:
    """What is wrong, each as ``line:column: text``."""
    found: list[str] = []
    try:
        config.parse(textwrap.dedent(text), "c.yaml")
    except ConfigError as error:
        found = error.mistakes
    assert all(re.match(r"c\.yaml:\d+:\d+: .", one) for one in found)
    return [one.removeprefix("c.yaml:") for one in found]


def after_good(text: str) -> list[str]:
    """What is wrong with lines that follow a configuration that is right, numbered from 1."""
    found = []
    for one in mistakes(GOOD + textwrap.dedent(text)):
        line, _, rest = one.partition(":")
        found.append(f"{int(line) - GOOD.count(chr(10))}:{rest}")
    return found


def routes(text: str) -> list[str]:
    """What is wrong with routes, numbered from the line behind ``routes:``."""
    found = after_good("routes:\n" + textwrap.indent(textwrap.dedent(text).strip("\n"), "  "))
    return [f"{int(one.partition(':')[0]) - 1}:{one.partition(':')[2]}" for one in found]


def test_what_init_writes_and_the_default_are_right() -> None:
    """The starting configuration and the one that is used without a file have no mistake."""
    assert config.parse(starter.text()).routes[0].name == "urgent"
    assert list(config.parse(config.DEFAULT).sinks) == ["console"]


def test_all_mistakes_are_told_at_once_where_they_stand() -> None:
    """Mistakes of all kinds in one file are told together, in file order, at the right line and column."""
    text = """\
        labels: {team: soc, cost_center: 4711}
        lables: {}
        sources:
          falco:
            type: falco_htp
          osquery:
            type: osquery_log
            poll: 5
          open: {type: falco_http, listen: "0.0.0.0:2801"}
        sinks:
          soc:
            type: webhook
            url: https://soc.example.com/
            secrets: ["${file:/nonexistent/key}", "${TEST_UNSET}"]
            batch: {max_alert: 3}
          soc: {type: file}
        routes:
          - name: urgent
            match: {severity: urgent}
            sinks: [sco]
          - name: urgent
            match:
              strategy: ADS-9999
            sinks: []
        unmatched: [nobody]
        spool: {max_size: 1 TB}
        """
    assert mistakes(text) == [
        "1:34: labels.cost_center: expected text, found a number; put it in quotes",
        "2:1: lables: unknown key; did you mean 'labels'?",
        "5:11: sources.falco.type: there is no 'falco_htp' among the sources; did you mean 'falco_http'?",
        "6:3: sources.osquery.path: is missing",
        "8:11: sources.osquery.poll: expected a duration with its unit, like 500ms, 10s, 5m, 2h or 7d",
        "9:36: sources.open.listen: other machines can reach 0.0.0.0:2801; set tls, or say allow_plaintext: true",
        "16:3: sinks.soc.path: is missing",
        "16:3: sinks.soc: is on line 11 already; keep one",
        "19:23: routes.0.match.severity: expected 'critical', 'high', 'medium', 'low' or 'informational'",
        "20:13: routes.0.sinks: no sink is called 'sco'; did you mean 'soc'?",
        "21:11: routes.1.name: the route at c.yaml:18:11 is called 'urgent' already",
        "24:5: routes.1.sinks: expected at least 1 in the list",
        "25:13: unmatched: no sink is called 'nobody'; expected one of soc",
        "26:19: spool.max_size: expected a size with its unit, like 64KiB, 16MiB or 1GiB",
    ]


def test_references_that_fail_are_told_beside_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset variable and an unreadable file are told at their place; what follows from them is not."""
    monkeypatch.setenv("TEST_SET", "https://soc.example.com/")
    text = """\
        sources:
          falco: {type: falco_http, token: "${TEST_UNSET}", listen: "${TEST_UNSET}"}
        sinks:
          soc:
            type: webhook
            url: ${TEST_SET}
            secrets:
              - ${file:/nonexistent/key}
              - $${file}
            headers: {Authorization: "Bearer ${TEST-BAD}", X-Open: "${TEST_SET"}
          out: {type: file, pth: x}
        labels: {team: "${TEST_UNSET}"}
        routes:
          - {name: a, match: {label: {team: soc}}, sinks: [soc]}
        """
    expected = "expected ${NAME} or ${file:PATH}; write $$ for a dollar sign"
    assert mistakes(text) == [
        "2:36: sources.falco.token: the environment has no variable TEST_UNSET",
        "2:61: sources.falco.listen: the environment has no variable TEST_UNSET",
        "8:9: sinks.soc.secrets.0: cannot read /nonexistent/key: No such file or directory",
        "9:9: sinks.soc.secrets.1: expected base64, with or without 'whsec_' before it",
        f"10:30: sinks.soc.headers.Authorization: {expected}",
        f"10:60: sinks.soc.headers.X-Open: {expected}",
        "11:3: sinks.out.path: is missing",
        "11:21: sinks.out.pth: unknown key; did you mean 'path'?",
        "12:16: labels.team: the environment has no variable TEST_UNSET",
    ]


def test_references_are_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``${NAME}``, ``${file:PATH}`` without its line end, several in one value, ``$$``, and no reference."""
    monkeypatch.setenv("TEST_HOST", "soc.example.com")
    (tmp_path / "team").write_text("blue\r\n")
    (tmp_path / "empty").write_text("")
    extra = (
        f"labels: {{a: '${{file:{tmp_path}/team}} at ${{TEST_HOST}}', b: '$$5 $x', c: '${{file:{tmp_path}/empty}}x'}}"
    )
    assert config.parse(GOOD + extra).general.labels == {"a": "blue at soc.example.com", "b": "$5 $x", "c": "x"}


def test_secret_files_must_be_readable_text(tmp_path: Path) -> None:
    """A folder and bytes that are not UTF-8 are told as what they are."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    found = after_good(f"labels:\n  a: ${{file:{tmp_path}}}\n  b: ${{file:{tmp_path}/binary}}\n")
    assert found == [
        f"2:6: labels.a: cannot read {tmp_path}: Is a directory",
        f"3:6: labels.b: cannot read {tmp_path}/binary: is not UTF-8",
    ]


def test_secrets_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """No message and no representation of the configuration holds a secret, whatever is wrong beside or with it."""
    monkeypatch.setenv("TEST_TOKEN", "tok-3Vq9")
    monkeypatch.setenv("TEST_KEY", SECRET)
    right = """\
        sources: {falco: {type: falco_http, token: "${TEST_TOKEN}"}}
        sinks:
          soc: {type: webhook, url: "https://x.example", secrets: ["${TEST_KEY}"], headers: {A: "${TEST_TOKEN}"}}
        """
    shown = repr(config.parse(textwrap.dedent(right)))
    assert "tok-3Vq9" not in shown
    assert SECRET not in shown
    wrong = """\
        sources: {falco: {type: falco_http, token: ["tok-3Vq9"], listen: "${TEST_TOKEN}"}}
        sinks:
          a: {type: webhook, url: "tok-3Vq9", secrets: tok-3Vq9, headers: [tok-3Vq9]}
          b: {type: webhook, url: "https://u:tok-3Vq9@x.example", secrets: ["tok-3Vq9", "whsec_dG9rLTNWcTk="]}
          c: {type: webhook, url: "https://x.example", headers: {Authorization:Bearer tok-3Vq9}}
          d: {type: webhook, url: "https://x.example", headers: {"A: tok-3Vq9": x, "A: tok-3Vq9": y, A: [tok-3Vq9]}}
        """
    found = mistakes(wrong)
    assert len(found) > 8
    assert [one for one in found if "tok-3Vq9" in one or "dG9rLTNWcTk" in one] == []


NOT_YAML = [
    ("", "1:1: sinks: at least one is needed", "1:1: sources: at least one is needed"),
    ("# nothing\n", "1:1: sinks: at least one is needed", "1:1: sources: at least one is needed"),
    ("- a\n- b\n", "1:1: expected keys like sources, sinks and routes"),
    ("just text", "1:1: expected keys like sources, sinks and routes"),
    ("sources:\n\tfalco: x\n", "2:1: cannot be read as YAML: while scanning for the next token: found character '\\t'"
     " that cannot start any token; indent with spaces, not with tabs"),
    ("labels:\n  image: *nginx*\n", "2:16: cannot be read as YAML: while scanning an alias: expected alphabetic or"
     " numeric character, but found '*'; put quotes around a value that starts with *"),
    ("labels:\n  image: *nginx\n", "2:10: cannot be read as YAML: found undefined alias 'nginx';"
     " put quotes around a value that starts with *"),
    ("labels:\n  a: b: c\n", "2:7: cannot be read as YAML: mapping values are not allowed here;"
     " put quotes around a value with ': ' in it, or indent it as its neighbours"),
    ("labels:\n  a: 'x\n",
     "3:1: cannot be read as YAML: while scanning a quoted scalar: found unexpected end of stream"),
    ("a: 1\n---\nb: 2\n", "2:1: cannot be read as YAML: expected a single document in the stream:"
     " but found another document"),
    ("labels:\n  a: b\x00\n", "2:7: cannot be read as YAML: character U+0000 is not allowed"),
    ("labels: " + "[" * 5000, "1:1: nests too deeply; 50 levels are plenty"),
]  # fmt: skip


@pytest.mark.parametrize("case", NOT_YAML, ids=lambda case: repr(case[0][:20]))
def test_what_is_no_configuration_is_told(case: tuple[str, ...]) -> None:
    """Files that are empty, no YAML, or of another shape name the place and what to do."""
    text, *expected = case
    assert mistakes(text) == list(expected)


def test_values_that_yaml_takes_for_something_else() -> None:
    """What looks like a date, a broken date, a switch or a number where text is wanted says: put it in quotes."""
    found = after_good(
        """\
        labels:
          day: 2026-11-21
          broken: 2026-13-45
          answer: no
          number: 1.5
          nothing:
          list: [a]
          keys: {a: b}
        """
    )
    assert found == [
        "2:8: labels.day: expected text, found a date; put it in quotes",
        "3:11: labels.broken: expected text, found nothing",
        "3:11: labels.broken: looks like a YAML timestamp and is none; put it in quotes",
        "4:11: labels.answer: expected text, found true or false; put it in quotes",
        "5:11: labels.number: expected text, found a number; put it in quotes",
        "6:3: labels.nothing: expected text, found nothing",
        "7:3: labels.list: expected text, found a list",
        "8:3: labels.keys: expected text, found keys with values",
    ]


def test_keys_must_be_plain_and_stand_once() -> None:
    """A list as a key and a key that stands twice are told where the second one stands."""
    found = after_good("labels:\n  ? [a, b]\n  : c\n  x: 1st\n  x: 2nd\nlog: {level: info, level: debug}\n")
    assert found == [
        "2:5: expected a plain key, found a list or keys with values",
        f"5:3: labels.x: is on line {GOOD.count(chr(10)) + 4} already; keep one",
        f"6:20: log.level: is on line {GOOD.count(chr(10)) + 6} already; keep one",
    ]


def test_anchors_and_merge_keys_work() -> None:
    """Sinks may share settings by anchor and merge key; own keys win, and mistakes are told where they stand."""
    text = """\
        sources: {falco: {type: falco_http}}
        sinks:
          a: &common
            type: webhook
            url: https://a.example/
            retry: {max_wait: 5m}
          b:
            <<: *common
            url: https://b.example/
        """
    loaded = config.parse(textwrap.dedent(text))
    assert loaded.sinks["b"].delivery.retry.max_wait == 300
    assert loaded.sinks["b"].settings.url == "https://b.example/"  # type: ignore[attr-defined]
    assert mistakes(text.replace("https://b.example/", "ftp://b.example")) == [
        "9:10: sinks.b.url: expected http://… or https://…"
    ]
    assert mistakes(text.replace("5m", "5")) == [
        f"6:23: sinks.{name}.retry.max_wait: expected a duration with its unit, like 500ms, 10s, 5m, 2h or 7d"
        for name in "ab"
    ]


def test_deep_and_multiplying_documents_are_refused() -> None:
    """Nesting has a limit, an alias within itself too, and aliases cannot multiply a document without bound."""
    deep = "labels: " + "{a: " * 60 + "x" + "}" * 60
    assert any("nests deeper than 50 levels" in one for one in mistakes(deep))
    assert any("nests deeper than 50 levels" in one for one in mistakes("labels: &a [*a]"))
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(
        f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
    )
    assert any("too many values; do aliases multiply?" in one for one in mistakes(bomb))


def test_sections_without_content_are_left_out() -> None:
    """A section whose keys are all commented out counts as left out; ``admin: null`` switches the listener off."""
    loaded = config.parse(GOOD + "spool:\n  # max_size: 1GiB\nroutes:\nenrichers:\nstrategies:\nlabels:\nadmin: null\n")
    assert loaded.general.spool.max_size == 2**30
    assert loaded.general.admin is None


SHAPES = [
    ("sources: [falco]", "sources: expected names, each with its settings"),
    ("sources: {falco: falco_http}", "sources.falco: expected a 'type', one of falco_file, falco_http, osquery_log"),
    ("sources: {falco: {listen: x}}", "sources.falco: expected a 'type', one of falco_file, falco_http, osquery_log"),
    ("sinks: {out: {type: [console]}}", "sinks.out: expected a 'type', one of console, file, webhook"),
    ("enrichers: {docker: {type: docker}}", "enrichers.docker.type: there is no 'docker' among the enrichers"),
    ("routes: {a: b}", "routes: expected a list of routes"),
    ("routes: [a]", "routes.0: expected keys with values, found text"),
    ("routes: [{nam: a, sinks: [soc]}]", "routes.0.name: is missing"),
    ("routes: [{nam: a, sinks: [soc]}]", "routes.0.nam: unknown key; did you mean 'name'?"),
    ("routes: [{name: '', sinks: [soc]}]", "routes.0.name: expected at least 1 character(s)"),
    ("routes: [{name: a, sinks: soc}]", "routes.0.sinks: expected a list, found text"),
    ("routes: [{name: a, sinks: [soc], continue: maybe}]", "routes.0.continue: expected true or false, found text"),
    ("routes: [{name: a, sinks: [soc], match: {any: []}}]", "routes.0.match.any: expected at least 1 in the list"),
    ("routes: [{name: a, sinks: [soc], match: {any: [{foo: 1}]}}]", "routes.0.match.any.0.foo: unknown key;"
     " expected one of all, any, detection, host, image, label, namespace, not, sensor, severity, source, strategy,"
     " tags, technique"),
    ("routes: [{name: a, sinks: [soc], match: {not: {hots: x}}}]", "routes.0.match.not.hots: unknown key;"
     " did you mean 'host'?"),
    ("unmatched: soc", "unmatched: expected a list, found text"),
    ("unclaimed: rout", "unclaimed: expected 'route', or a list of sinks"),
    ("unclaimed: [1]", "unclaimed: expected 'route', or a list of sinks"),
    ("unclaimed: [sco]", "unclaimed: no sink is called 'sco'; did you mean 'soc'?"),
    ("log: {level: loud}", "log.level: expected 'debug', 'info', 'warning' or 'error'"),
    ("suppression: yes", "suppression: expected keys with values, found true or false"),
    ("admin: {listn: x}", "admin.listn: unknown key; did you mean 'listen'?"),
    ("admin: {listen: '127.0.0.1:1', tls: {}}", "admin.tls.certificate: is missing"),
    ("admin: {tls: {certificate: /nonexistent, key: /nonexistent}}", "admin.tls.key: there is no such file"),
    ("admin: {max_connections: many}", "admin.max_connections: expected a whole number, found text"),
    ("admin: {max_connections: 0}", "admin.max_connections: expected at least 1"),
    ("strategies: {folders: [/nonexistent]}", "strategies.folders: /nonexistent is no folder"),
    ("strategies: {link: 'https://wiki/{ID}'}", "strategies.link: {ID} is not filled in; expected {id} or {file}"),
    ("spool: {when_full: explode}", "spool.when_full: expected 'block' or 'drop_oldest'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SHAPES)
def test_wrong_shapes_say_what_was_expected(text: str, expected: str) -> None:
    """A wrong type, an unknown or missing key, or a value that is none of the choices reads as plain words."""
    section = text.partition(":")[0]
    base = "\n".join(line for line in GOOD.splitlines() if section in {"sources", "sinks"} or line)
    if section in {"sources", "sinks"}:
        keep = "sinks" if section == "sources" else "sources"
        base = {"sources": GOOD[: GOOD.index("sinks")], "sinks": GOOD[GOOD.index("sinks") :]}[keep]
    found = [one.split(": ", 1)[1] for one in mistakes(f"{base}\n{text}")]
    assert any(one.startswith(expected) for one in found), found


UNITS = [
    ("drain_timeout", value, "duration")
    for value in ("5", "5 seconds", "-1s", "1.s", "s", "1e3s", "\u0663s", "9" * 400 + "d", "1h30m", "''", "[5s]")
]
UNITS += [
    ("spool: {max_size", value + "}", "size")
    for value in ("5", "5 megs", "1.5GiB", "-1KiB", "1gib", "1 TB", "9" * 5000 + "B")
]
UNITS += [
    ("admin: {listen", f"'{value}'}}", "HOST:PORT")
    for value in ("2802", ":2802", "localhost", "127.0.0.1:99999", "http://127.0.0.1:2802", "a b:1", "::1:x", "*:1", "")
]


@pytest.mark.parametrize(("key", "value", "expected"), UNITS, ids=lambda part: part[:20])
def test_bad_durations_sizes_and_addresses(key: str, value: str, expected: str) -> None:
    """A duration or size without its unit, or an address without its port, says how it is written."""
    (found,) = after_good(f"{key}: {value}")
    assert f"expected a {expected} with its unit" in found or f"expected {expected}, like" in found


def test_good_durations_sizes_and_addresses() -> None:
    """Each unit counts as it says, and IPv6 addresses stand in brackets."""
    for written, seconds in {"500ms": 0.5, "1.5s": 1.5, "10s": 10, "5m": 300, "2h": 7200, "7d": 604800}.items():
        assert config.parse(GOOD + f"drain_timeout: {written}").general.drain_timeout == seconds
    for written, size in {"1B": 1, "64KiB": 65536, "16 MiB": 2**24, "1GiB": 2**30, "1KB": 1000, "1GB": 10**9}.items():
        assert config.parse(GOOD + f"spool: {{max_size: {written}}}").general.spool.max_size == size
    for written in ("127.0.0.1:0", "[::1]:2802", "localhost:65535"):
        admin = config.parse(GOOD + f"admin: {{listen: '{written}'}}").general.admin
        assert admin is not None
        assert str(admin.listen) == written
        assert admin.listen.is_loopback


NEVER = [
    ("{strategy: ADS-9999}", "19: routes.0.match.strategy: 'ADS-9999' can never match: there is no such strategy"),
    ("{strategy: ADS-001}", "did you mean 'ADS-000"),
    ("{strategy: 'AD-*'}", "routes.0.match.strategy: 'AD-*' can never match"),
    ("{strategy: [ADS-0001, ADS-9999]}", "'ADS-9999' can never match: there is no such strategy"),
    ("{sensor: flaco}",
     "routes.0.match.sensor: 'flaco' can never match: there is no such sensor; did you mean 'falco'?"),
    ("{technique: Discovery}", "'Discovery' can never match: expected a technique's id like T1046"),
    ("{label: {taem: soc}}",
     "routes.0.match.label.taem: can never match: no label is called 'taem'; did you mean 'team'?"),
    ("{label: {team: blue}}", "routes.0.match.label.team: can never match: the label team is 'soc'"),
    ("{sensor: osquery, tags: network}", "routes.0.match.tags: can never match: osquery's alerts have no tags"),
    ("{sensor: falco, source: snapshot}", "can never match: snapshot is osquery's, not Falco's"),
    ("{sensor: osquery, source: syscall}", "can never match: osquery's sources are result, snapshot and status"),
    ("{all: [{strategy: ADS-0001}, {strategy: ADS-0002}]}",
     "can never match: no alert has two values of strategy at once"),
    ("{host: a, all: [{all: [{host: 'b*'}]}]}", "can never match: no alert has two values of host at once"),
    ("{sensor: falco, any: [{sensor: osquery}]}",
     "routes.0.match.any.0: can never match: no alert has two values of sensor"),
    ("{label: {team: s*}, all: [{label: {team: soc}}, {label: {team: x}}]}", "two values of the label team at once"),
    ("{not: {}}", "routes.0.match.not: can never match: 'not' of everything is nothing"),
    ("{not: {sensor: '*'}}", "routes.0.match.not: can never match: it excludes what the rest asks for"),
    ("{not: {severity: informational}}", "routes.0.match.not: can never match: it excludes what the rest asks for"),
    ("{severity: high, not: {severity: medium}}", "it excludes what the rest asks for"),
    ("{detection: web-1, not: {detection: 'web-*'}}", "it excludes what the rest asks for"),
    ("{tags: a, all: [{not: {tags: [a, b]}}]}", "it excludes what the rest asks for"),
    ("{host: a, not: {any: [{host: [a, b]}, {namespace: x}]}}", "it excludes what the rest asks for"),
]  # fmt: skip


@pytest.mark.parametrize(("match", "expected"), NEVER)
def test_a_route_that_can_never_match_is_a_mistake(match: str, expected: str) -> None:
    """A match that no alert can fulfil is told at the part that makes it so."""
    found = after_good(f"labels: {{team: soc}}\nroutes:\n  - {{name: a, sinks: [soc], match: {match}}}")
    assert found
    assert all(one.startswith("3:") for one in found), found
    assert any(expected.removeprefix("19: ") in one for one in found), found


def test_a_never_matching_part_is_told_at_its_column() -> None:
    """The column is that of the value, not of the route."""
    assert routes("- {name: a, sinks: [soc], match: {sensor: falco, strategy: ADS-7777}}")[0].startswith("1:62: ")


SHADOWED = [
    ("{}", "{severity: high}"),
    ("{severity: high}", "{severity: critical, sensor: falco}"),
    ("{strategy: 'ADS-*'}", "{strategy: [ADS-0001, ADS-0002]}"),
    ("{sensor: falco}", "{all: [{sensor: falco}, {severity: low}]}"),
    ("{any: [{sensor: falco}, {severity: low}]}", "{severity: high}"),
    ("{not: {sensor: osquery}}", "{not: {sensor: [osquery, falco]}}"),
    ("{label: {team: s*}}", "{label: {team: soc}}"),
    ("{severity: low}", "{any: [{severity: high}, {severity: critical}]}"),
]


@pytest.mark.parametrize(("first", "second"), SHADOWED)
def test_a_shadowed_route_is_a_mistake(first: str, second: str) -> None:
    """A route behind one that takes all that it would, without continue, is told; with continue, it is fine."""
    text = f"labels: {{team: soc}}\nroutes:\n  - {{name: a, sinks: [soc], match: {first}%s}}\n"
    text += f"  - {{name: b, sinks: [soc], match: {second}}}\n"
    expected = "routes.1: can never match: 'a' before it takes all that it would, and does not continue"
    assert f"4:5: {expected}" in after_good(text.replace("}}%s}", "}}}").replace("%s", ""))
    assert [one for one in after_good(text.replace("%s", ", continue: true")) if "before it" in one] == []


def test_sensors_need_a_source() -> None:
    """A route for a sensor that no source brings can never match; in a list beside one that has a source it may."""
    only_falco = GOOD.replace("  osquery: {type: osquery_log, path: /var/log/osquery/osqueryd.results.log}\n", "")
    route = "routes: [{{name: a, sinks: [soc], match: {}}}]"
    (found,) = mistakes(only_falco + route.format("{sensor: osquery}"))
    assert found == "6:50: routes.0.match.sensor: can never match: there is no source for osquery"
    assert mistakes(only_falco + route.format("{sensor: [falco, osquery]}")) == []
    only_osquery = GOOD.replace('  falco: {type: falco_http, listen: "127.0.0.1:0"}\n', "")
    assert "osquery's alerts have no tags" in mistakes(only_osquery + route.format("{tags: network}"))[0]


def test_strategy_none_needs_the_routes() -> None:
    """What no strategy claims reaches no route when ``unclaimed`` names sinks."""
    route = "routes: [{name: a, sinks: [soc], match: {strategy: none}}]\n"
    assert after_good(route) == []
    (found,) = after_good(route + "unclaimed: [out]")
    assert "'none' can never match: what no strategy claims goes to the 'unclaimed' sinks" in found


def test_one_wrong_setting_does_not_make_routes_impossible() -> None:
    """A source with a wrong setting still brings its sensor; one of an unknown type may bring any."""
    route = "routes: [{name: a, sinks: [soc], match: {sensor: osquery}}]\n"
    assert len(mistakes(GOOD.replace("path:", "pth:") + route)) == 2
    (found,) = mistakes(GOOD.replace("osquery_log", "osquery_lgo") + route)
    assert "there is no 'osquery_lgo'" in found


POSSIBLE = """\
- {name: a, sinks: [soc], match: {severity: critical}}
- {name: b, sinks: [soc], match: {severity: high, not: {severity: critical}}}
- {name: c, sinks: [soc], match: {strategy: ["ADS-0001", none], sensor: [falco, osquery]}}
- {name: d, sinks: [soc], match: {source: [snapshot, syscall], tags: "*"}}
- {name: e, sinks: [soc], match: {sensor: osquery, source: "*", label: {team: "s?c"}}}
- {name: f, sinks: [soc], match: {all: [{tags: a}, {tags: b}, {image: x}, {image: "*:1"}], technique: T1046}}
- {name: g, sinks: [soc], match: {any: [{sensor: falco}, {sensor: osquery}], not: {any: [{host: a}, {host: b}]}}}
- {name: h, sinks: [soc], match: {namespace: "kube-*", all: [{namespace: [kube-system, default]}]}}
- {name: i, sinks: [soc], match: {not: {not: {sensor: falco}}}}
- {name: j, sinks: [soc], match: {detection: "A *", not: {detection: "A b*"}}}
- {name: k, sinks: [soc], match: {tags: a, not: {tags: b}}}
- {name: l, sinks: [soc], match: {severity: informational, namespace: "*"}}
- {name: m, sinks: [soc], match: {host: a, not: {host: a, severity: high}}}
- {name: n, sinks: [soc, out]}
"""


def test_routes_that_can_match_raise_no_alarm() -> None:
    """None of many unusual routes that some alert can take is called impossible, one after the other."""
    assert after_good("labels: {team: soc}\nroutes:\n" + textwrap.indent(POSSIBLE, "  ")) == []


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that are no UTF-8 are mistakes of the configuration; a BOM is none."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa")
    for name, reason in (("missing", "No such file or directory"), (".", "Is a directory"), ("binary", "is not UTF-8")):
        with pytest.raises(ConfigError, match=reason):
            config.read(tmp_path / name)
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert config.read(tmp_path / "bom").sinks


PIECES = st.sampled_from(
    [
        "sources", "sinks", "routes", "match", "type", "falco_http", "console", "name", "any", "all", "not", "label",
        "${", "}", "${file:", "$", "&a", "*a", "<<", "!!int", "!!binary", "2026-13-01", "[", "]", "{", "}", ",", ": ",
        ":", "\n", "\n  ", "\n    ", "- ", "? ", "'", '"', "|", ">", "#", "\t", "%", "@", "null", "1e400", "0x",
        "\ud800", "\x00", "\\ud800", "=", "ADS-0001", "severity", "high", "{}", "[]", "admin", "spool", "strategies",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join)))
@example("!!int")
@example("sources: {a: {type: !!binary x}}")
@example("? {a: b}\n: 1")
@example("a: !!timestamp x\nb: !!bool x\nc: !!float x")
@example("sources: {? {a: b} : 1, ? [x] : 2}")
@example('labels: {"\\ud800": "\\ud800"}')
@example("a: " + "1" * 5000)
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    """Whatever the text, it is a configuration or a list of mistakes, each with its place."""
    mistakes(text)
