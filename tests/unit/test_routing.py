"""Routing: which routes take an alert, what stops, what the defaults do, and that explain says what decide does."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsbridge import attack
from adsbridge.events import Alert, Severity, StrategyRef
from adsbridge.reachability import World, implied, impossible
from adsbridge.routing import Match, Route, Router

SCAN = StrategyRef(id="ADS-0001", title="t", priority=Severity.HIGH, first_steps=["s"], link="l")
FULL: dict[str, Any] = {
    "id": "0" * 32,
    "time": "2026-11-21T20:27:53.174345369Z",
    "sensor": "falco",
    "source": "syscall",
    "detection": "Network Scan Started in Container",
    "severity": "high",
    "summary": "scan",
    "strategy": SCAN,
    "attack": [attack.technique("T1562.007")],
    "tags": ["container", "mitre_discovery"],
    "container": {"id": "abc", "image": "registry:5000/team/nginx", "tag": "1.25"},
    "kubernetes": {"namespace": "shop", "pod": "web-1"},
    "host": {"name": "node-7"},
    "labels": {"team": "blue", "env": "prod"},
}


def alert(**changes: Any) -> Alert:
    """The full alert with some fields changed; ``None`` removes one."""
    fields = {key: value for key, value in {**FULL, **changes}.items() if value is not None}
    return msgspec.convert(msgspec.to_builtins(fields), Alert)


def route(name: str, match: dict[str, Any] | None = None, *, go_on: bool = False, sinks: tuple[str, ...] = ()) -> Route:
    return Route.model_validate(
        {"name": name, "match": match or {}, "sinks": list(sinks or (name,)), "continue": go_on}
    )


def takes(match: dict[str, Any], one: Alert) -> bool:
    """Whether a route with the match takes the alert."""
    return Router([route("r", match)], []).decide(one).routes == ("r",)


MATCHES = [
    ({}, True),
    ({"sensor": "falco"}, True),
    ({"sensor": ["osquery", "falco"]}, True),
    ({"sensor": "osquery"}, False),
    ({"sensor": "Falco"}, False),
    ({"source": "syscall"}, True),
    ({"source": "k8s_audit"}, False),
    ({"detection": "Network Scan Started in Container"}, True),
    ({"detection": "Network Scan*"}, True),
    ({"detection": "Network Scan"}, False),
    ({"detection": "network*"}, False),
    ({"strategy": "ADS-0001"}, True),
    ({"strategy": "ADS-*"}, True),
    ({"strategy": "ADS-000[12]"}, True),
    ({"strategy": "ADS-000[!1]"}, False),
    ({"strategy": "ADS-000?"}, True),
    ({"strategy": "none"}, False),
    ({"technique": "T1562.007"}, True),
    ({"technique": "T1686.001"}, True),
    ({"technique": "T1686*"}, True),
    ({"technique": "T1562"}, False),
    ({"technique": "T1046"}, False),
    ({"severity": "high"}, True),
    ({"severity": "low"}, True),
    ({"severity": "informational"}, True),
    ({"severity": "critical"}, False),
    ({"tags": "container"}, True),
    ({"tags": ["nope", "mitre_*"]}, True),
    ({"tags": "mitre"}, False),
    ({"image": "registry:5000/team/nginx"}, True),
    ({"image": "registry:5000/team/nginx:1.25"}, True),
    ({"image": "*/nginx"}, True),
    ({"image": "*:1.25"}, True),
    ({"image": "*:1.2"}, False),
    ({"image": "nginx"}, False),
    ({"namespace": "shop"}, True),
    ({"namespace": "kube-*"}, False),
    ({"host": "node-*"}, True),
    ({"host": "node"}, False),
    ({"label": {"team": "blue"}}, True),
    ({"label": {"team": ["red", "b*"], "env": "prod"}}, True),
    ({"label": {"team": "blue", "env": "test"}}, False),
    ({"label": {"owner": "*"}}, False),
    ({"sensor": "falco", "severity": "critical"}, False),
    ({"any": [{"host": "x"}, {"namespace": "shop"}]}, True),
    ({"any": [{"host": "x"}, {"namespace": "y"}]}, False),
    ({"all": [{"tags": "container"}, {"tags": "mitre_*"}]}, True),
    ({"all": [{"tags": "container"}, {"tags": "nope"}]}, False),
    ({"not": {"host": "node-7"}}, False),
    ({"not": {"host": "node-7", "namespace": "y"}}, True),
    ({"not": {"any": [{"host": "x"}, {"not": {"severity": "critical"}}]}}, False),
    ({"any": [{"all": [{"not": {"sensor": "osquery"}}]}], "severity": "medium"}, True),
]


@pytest.mark.parametrize(("match", "expected"), MATCHES)
def test_each_key_matches_what_it_says(match: dict[str, Any], *, expected: bool) -> None:
    """Each match key, alone and combined, with lists and globs, takes the alert or not."""
    assert takes(match, alert()) is expected


ABSENT = [
    ("image", {"container": None}),
    ("image", {"container": {"id": "abc"}}),
    ("namespace", {"kubernetes": None}),
    ("host", {"host": None}),
    ("tags", {"tags": []}),
    ("technique", {"attack": []}),
]


@pytest.mark.parametrize(("key", "changes"), ABSENT)
def test_what_an_alert_lacks_matches_no_pattern_but_its_negation(key: str, changes: dict[str, Any]) -> None:
    """An alert without a value does not match even ``*``; ``not`` of it does."""
    assert takes({key: "*"}, alert())
    assert not takes({key: "*"}, alert(**changes))
    assert takes({"not": {key: "*"}}, alert(**changes))


def test_an_image_without_tag_matches_by_its_name_only() -> None:
    """Without a tag on the alert, the pattern with a tag does not match, and the one without does."""
    untagged = alert(container={"id": "abc", "image": "nginx"})
    assert takes({"image": "nginx"}, untagged)
    assert not takes({"image": "nginx:*"}, untagged)


def test_strategy_none_is_what_no_strategy_claims() -> None:
    """``strategy: none`` takes unclaimed alerts and no others; ``ADS-*`` the reverse; ``*`` both."""
    unclaimed = alert(strategy=None)
    assert takes({"strategy": "none"}, unclaimed)
    assert not takes({"strategy": "ADS-*"}, unclaimed)
    assert takes({"strategy": "*"}, unclaimed)
    assert takes({"strategy": ["ADS-0001", "none"]}, unclaimed)
    assert takes({"strategy": ["ADS-0001", "none"]}, alert())


@pytest.mark.parametrize("severity", list(Severity))
def test_the_severity_threshold_includes_its_own_level(severity: Severity) -> None:
    """An alert matches its own level and each lower one, and no higher one."""
    for threshold in Severity:
        assert takes({"severity": threshold.value}, alert(severity=severity)) is (severity.rank >= threshold.rank)


def test_the_first_match_stops_unless_it_continues() -> None:
    """Routes are tried in order; a match without continue is the last; sinks add up without repetition."""
    router = Router(
        [
            route("never", {"host": "x"}),
            route("archive", go_on=True, sinks=("file", "soc")),
            route("urgent", {"severity": "high"}, sinks=("pager", "soc")),
            route("rest"),
        ],
        ["lost"],
    )
    assert router.decide(alert()) == (("file", "soc", "pager"), ("archive", "urgent"), None)
    assert router.decide(alert(severity="low")) == (("file", "soc", "rest"), ("archive", "rest"), None)
    assert router.explain(alert()) == [
        ("never", "no: needs host x (it is node-7)"),
        ("archive", "yes: takes everything"),
        ("urgent", "yes: severity at least high"),
        ("rest", "not tried: urgent took it and does not continue"),
    ]


def test_what_no_route_takes_goes_to_the_unmatched_sinks() -> None:
    """The ``unmatched`` sinks get it, or nobody when there are none; both are said."""
    never = [route("never", {"host": "x"})]
    assert Router(never, ["file"]).decide(alert()) == (("file",), (), "unmatched")
    assert Router(never, []).decide(alert()) == ((), (), "unmatched")
    assert Router([], ["file"]).decide(alert()) == (("file",), (), "unmatched")


def test_what_no_strategy_claims_may_have_sinks_of_its_own() -> None:
    """``unclaimed`` sinks take it past the routes; claimed alerts are routed; ``route`` treats it like the rest."""
    own = Router([route("all")], ["file"], ["noise"])
    assert own.decide(alert(strategy=None)) == (("noise",), (), "unclaimed")
    assert own.explain(alert(strategy=None)) == [("all", "not tried: no strategy claims the alert")]
    assert own.decide(alert()).routes == ("all",)
    assert Router([route("all")], [], "route").decide(alert(strategy=None)).routes == ("all",)
    assert Router([route("all")], ["file"], []).decide(alert(strategy=None)) == ((), (), "unclaimed")


def test_explain_says_what_was_wanted_and_what_it_is_instead() -> None:
    """Each condition that fails is named with the alert's own value, in one printable line."""
    match = {
        "sensor": "osquery",
        "technique": ["T1046", "T1018"],
        "severity": "critical",
        "image": "redis",
        "namespace": ["a", "b"],
        "label": {"owner": "x"},
        "any": [{"host": "x"}, {"detection": "y", "tags": "z"}],
        "not": {"sensor": "falco"},
    }
    ((_, why),) = Router([route("r", match)], []).explain(alert(kubernetes={"namespace": "evil\n\x1b[2J"}))
    assert why == (
        "no: needs sensor osquery (it is falco); needs namespace a or b (it is evil\\n\\x1b[2J); "
        "needs technique T1046 or T1018 (it is T1562.007, T1686.001); "
        "needs image redis (it is registry:5000/team/nginx, registry:5000/team/nginx:1.25); "
        "needs severity at least critical (it is high); needs label owner x (it is unknown); "
        "needs any of (host x; detection y and tags z); needs not (sensor falco)"
    )


VALUES = {
    "sensor": ["falco", "osquery"],
    "source": ["syscall", "k8s_audit", "result", "snapshot", "status"],
    "detection": ["A", "AB", "B"],
    "namespace": ["shop", "kube-system"],
    "host": ["node-1", "node-2"],
    "tags": ["a", "b"],
    "image": ["nginx", "nginx:1", "redis"],
    "strategy": ["ADS-0001", "ADS-0002", "none"],
    "technique": ["T1046", "T1562.007", "T1686.001"],
}
GLOBS = {
    "sensor": ["f*"],
    "detection": ["A*", "?"],
    "host": ["node-*", "*"],
    "strategy": ["ADS-*", "*"],
    "image": ["nginx*"],
    "tags": ["*"],
}


def _patterns(key: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(VALUES[key] + GLOBS.get(key, [])), min_size=1, max_size=2, unique=True)


LEAVES = st.fixed_dictionaries(
    {},
    optional={
        **{key: _patterns(key) for key in VALUES},
        "severity": st.sampled_from([severity.value for severity in Severity]),
        "label": st.fixed_dictionaries(
            {}, optional={"team": st.just(["blue"]), "env": st.sampled_from([["p*"], ["prod"], ["test"]])}
        ),
    },
).map(lambda match: dict(list(match.items())[:3]))


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    combined = st.fixed_dictionaries(
        {},
        optional={
            "any": st.lists(inner, min_size=1, max_size=2),
            "all": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
        },
    )
    return st.builds(lambda leaf, more: {**leaf, **more}, LEAVES, combined)


MATCH = st.recursive(LEAVES, _nested, max_leaves=5)
ROUTES = st.lists(st.tuples(MATCH, st.booleans()), max_size=5).map(
    lambda drawn: [
        route(f"r{index}", match, go_on=go_on, sinks=(f"s{index % 3}",)) for index, (match, go_on) in enumerate(drawn)
    ]
)


@st.composite
def alerts(draw: st.DrawFn) -> Alert:
    """Alerts such as the bridge makes: osquery's have no tags, and a source that is osquery's."""
    sensor = draw(st.sampled_from(VALUES["sensor"]))
    of_osquery = sensor == "osquery"
    sources = [source for source in VALUES["source"] if (source in {"result", "snapshot", "status"}) is of_osquery]
    strategy = draw(st.sampled_from([None, "ADS-0001", "ADS-0002"]))
    return alert(
        sensor=sensor,
        source=draw(st.sampled_from(sources)),
        detection=draw(st.sampled_from(VALUES["detection"])),
        severity=draw(st.sampled_from(list(Severity))),
        strategy=None if strategy is None else {**msgspec.to_builtins(SCAN), "id": strategy},
        attack=[
            msgspec.to_builtins(attack.technique(one)) for one in draw(st.sets(st.sampled_from(VALUES["technique"])))
        ],
        tags=[] if of_osquery else draw(st.lists(st.sampled_from(VALUES["tags"]), unique=True)),
        container=draw(st.sampled_from([None, {"id": "x"}, {"image": "nginx", "tag": "1"}, {"image": "redis"}])),
        kubernetes=draw(st.sampled_from([None, {"namespace": "shop"}, {"namespace": "kube-system"}])),
        host=draw(st.sampled_from([None, {"name": "node-1"}, {"name": "node-2"}])),
        labels={"team": "blue", "env": "prod"},
    )


UNCLAIMED: st.SearchStrategy[Literal["route"] | list[str]] = st.sampled_from(["route", [], ["noise"]])


@settings(max_examples=100, deadline=None)
@given(ROUTES, UNCLAIMED, alerts())
def test_explain_agrees_with_decide(routes: list[Route], unclaimed: Literal["route"] | list[str], one: Alert) -> None:
    """For any routes and any alert, the routes that explain answers with yes are those that decide chose."""
    router = Router(routes, ["lost"], unclaimed)
    explained = router.explain(one)
    decision = router.decide(one)
    assert [name for name, _ in explained] == [route.name for route in routes]
    assert tuple(name for name, why in explained if why.startswith("yes: ")) == decision.routes
    assert all(why.startswith(("yes: ", "no: needs ", "not tried: ")) for _, why in explained)
    assert (decision.default is None) is bool(decision.routes)


WORLD = World(
    sensors=frozenset({"falco", "osquery"}),
    known_sensors=frozenset({"falco", "osquery"}),
    strategies=frozenset({"ADS-0001", "ADS-0002"}),
    labels={"team": "blue", "env": "prod"},
)


@settings(max_examples=100, deadline=None)
@given(ROUTES, st.lists(alerts(), min_size=1, max_size=20))
def test_a_route_called_impossible_takes_nothing(routes: list[Route], some: list[Alert]) -> None:
    """Whatever the routes, one that is said never to match takes none of any alerts: there is no false alarm."""
    router = Router(routes, [])
    taken = {name for one in some for name in router.decide(one).routes}
    for place, why in impossible(routes, WORLD):
        whole_route = place[1:] in {(), ("match",)} or (place[1] == "match" and "any" not in place)
        if whole_route and why.startswith("can never match"):
            assert f"r{place[0]}" not in taken, why


@settings(max_examples=100, deadline=None)
@given(MATCH, MATCH, st.lists(alerts(), min_size=1, max_size=20))
def test_what_is_implied_holds(wide: dict[str, Any], narrow: dict[str, Any], some: list[Alert]) -> None:
    """When one match is said to take all that another does, it takes each alert that the other takes."""
    if implied(Match.model_validate(wide), Match.model_validate(narrow)):
        for one in some:
            assert takes(wide, one) or not takes(narrow, one)
