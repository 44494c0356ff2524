"""SIGHUP: what is new comes into force as a whole or not at all, and what did not change goes on."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.alerts import falco, marker, names
from support.bridge import Bridge, configuration, feed, wait_until
from support.receiver import Receiver


def webhook(receiver: Receiver, path: str = "", **settings: Any) -> dict[str, Any]:
    return {"type": "webhook", "url": receiver.url + path, **settings}


def events(running: Bridge, event: str) -> list[dict[str, Any]]:
    return [line for line in running.log_lines if line["event"] == event]


def reload(running: Bridge, text: str, *, accepted: bool = True) -> None:
    """Change the configuration's file and have it read."""
    event = "reloaded" if accepted else "the new configuration is refused; the old one stays in force"
    before = len(events(running, event))
    running.path.write_text(text)
    running.signal(signal.SIGHUP)
    wait_until(lambda: len(events(running, event)) > before, event)


@contextmanager
def kept_alive(url: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        yield connection
    finally:
        connection.close()


def send(connection: http.client.HTTPConnection, name: str) -> int:
    connection.request("POST", "/", falco(name))
    with connection.getresponse() as answer:
        answer.read()
        return answer.status


def test_a_reload_changes_routes_sinks_and_sources(tmp_path: Path) -> None:
    """SIGHUP brings new routes, sinks and sources into force; an unchanged listener keeps its connections."""
    with Receiver() as receiver:
        first = json.loads(
            configuration(tmp_path, {"old": webhook(receiver, "/old"), "kept": webhook(receiver, "/kept")})
        )
        with Bridge(json.dumps(first), tmp_path) as running, kept_alive(running.source_url("http")) as connection:
            assert send(connection, "before") == 200
            wait_until(lambda: receiver.delivered("/alerts/kept") == {"before": 1}, "the first alert")
            peer = connection.sock.getsockname() if connection.sock else None
            second = json.loads(json.dumps(first))
            del second["sinks"]["old"], second["sources"]["file"]
            second["sinks"]["new"] = second["sinks"]["kept"] | {"url": receiver.url + "/new"}
            second["sources"]["more"] = {"type": "falco_http", "listen": "127.0.0.1:0"}
            second["routes"] = [{"name": "all", "sinks": ["new"]}]
            second["labels"] = {"team": "blue"}
            reload(running, json.dumps(second))
            assert send(connection, "after") == 200
            assert connection.sock is not None
            assert connection.sock.getsockname() == peer, "the connection was closed"
            running.feed("by-more", source="more")
            wait_until(lambda: len(receiver.delivered("/alerts/new")) == 2, "two alerts at the new sink")
            with (tmp_path / "events.jsonl").open("ab") as file:
                file.write(falco("by-removed-source") + b"\n")
            assert running.problems() == {}
            assert running.metric("source_up", source="file") == 0
        assert receiver.delivered("/alerts/old") == receiver.delivered("/alerts/kept") == Counter(["before"])
        assert receiver.delivered("/alerts/new") == Counter(["after", "by-more"])
        assert receiver.alerts[-1]["labels"] == {"team": "blue"}


def test_a_changed_sink_takes_over_what_waits(tmp_path: Path) -> None:
    """Mending a wrong address with a reload delivers what waited for it to the right one."""
    with Receiver() as receiver:
        wrong = configuration(tmp_path, {"soc": {"type": "webhook", "url": "http://127.0.0.1:1/"}})
        with Bridge(wrong, tmp_path) as running:
            running.feed(*names(20))
            wait_until(lambda: "sink soc" in running.problems(), "the breaker to open")
            reload(running, configuration(tmp_path, {"soc": webhook(receiver)}))
            wait_until(lambda: len(receiver.alerts) == 20, "20 alerts")
            assert running.problems() == {}
    assert receiver.delivered("/alerts") == Counter(names(20))


def test_a_source_may_be_renamed_and_two_may_swap_addresses(tmp_path: Path) -> None:
    """A new source may take the address that a removed or changed one gives up in the same reload."""
    with Receiver() as receiver:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            ports = [one.getsockname()[1], two.getsockname()[1]]

        def text(**sources: int) -> str:
            settings = {
                name: {"type": "falco_http", "listen": f"127.0.0.1:{ports[port]}"} for name, port in sources.items()
            }
            return configuration(tmp_path, {"soc": webhook(receiver)}, sources=settings)

        with Bridge(text(a=0, b=1), tmp_path) as running:
            reload(running, text(a=1, b=0))
            running.feed("swapped", source="a")
            reload(running, text(renamed=1, b=0))
            feed(f"http://127.0.0.1:{ports[1]}/", "renamed")
            feed(f"http://127.0.0.1:{ports[0]}/", "other")
            assert running.metric("events_received_total", source="renamed") == 1
            wait_until(lambda: len(receiver.alerts) == 3, "3 alerts")


def test_a_wrong_configuration_is_refused(tmp_path: Path) -> None:
    """SIGHUP with mistakes in the file logs each of them, and the old configuration stays in force."""
    with Receiver() as receiver:
        right = configuration(tmp_path, {"soc": webhook(receiver)})
        with Bridge(right, tmp_path) as running, kept_alive(running.source_url("http")) as connection:
            for wrong, told in (
                (right.replace('"webhook"', '"webhok"').replace('"poll"', '"pol"'), "did you mean 'webhook'"),
                ("sources: [", "cannot be read as YAML"),
                ("", "sinks: at least one is needed"),
            ):
                reload(running, wrong, accepted=False)
                error = events(running, "the new configuration is refused; the old one stays in force")[-1]["error"]
                assert told in error
                assert f"{running.path}:" in error
                assert send(connection, f"after {told.replace(' ', '-')}") == 200
            assert running.problems() == {}
            wait_until(lambda: len(receiver.alerts) == 3, "3 alerts")
            reload(running, right)
            running.path.unlink()
            running.signal(signal.SIGHUP)
            wait_until(lambda: "`adsbridge init` writes one" in running.log, "the refusal")
            assert send(connection, "still") == 200


def test_a_reload_that_cannot_be_done_leaves_nothing_behind(tmp_path: Path) -> None:
    """When one new source cannot start, no other new source or sink runs, and every old one does as before."""
    with Receiver() as receiver, socket.create_server(("127.0.0.1", 0)) as taken:
        first = json.loads(configuration(tmp_path, {"soc": webhook(receiver)}))
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            changing = f"127.0.0.1:{reserved.getsockname()[1]}"
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            new = f"127.0.0.1:{reserved.getsockname()[1]}"
        first["sources"]["changing"] = {"type": "falco_http", "listen": changing}
        first["sources"]["leaving"] = {"type": "falco_file", "path": str(tmp_path / "leaving.jsonl"), "poll": "20ms"}
        with Bridge(json.dumps(first), tmp_path) as running, kept_alive(running.source_url("http")) as connection:
            assert send(connection, "before") == 200
            second = json.loads(json.dumps(first))
            del second["sources"]["leaving"]
            second["sources"]["changing"]["max_body"] = "1MiB"
            second["sources"]["new"] = {"type": "falco_http", "listen": new}
            second["sources"]["taken"] = {"type": "falco_http", "listen": f"127.0.0.1:{taken.getsockname()[1]}"}
            second["sinks"]["soc"]["url"] += "/changed"
            second["sinks"]["other"] = webhook(receiver, "/other")
            second["routes"] = [{"name": "all", "sinks": ["other"]}]
            for _ in range(2):
                reload(running, json.dumps(second), accepted=False)
            refusal = events(running, "the new configuration is refused; the old one stays in force")[-1]["error"]
            assert refusal.startswith(f"cannot listen on 127.0.0.1:{taken.getsockname()[1]}: ")
            assert "already in use" in refusal
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", int(new.rpartition(":")[2]))).close()
            assert send(connection, "kept-alive") == 200
            feed(f"http://{changing}/", "changing")
            with (tmp_path / "leaving.jsonl").open("ab") as file:
                file.write(falco("leaving") + b"\n")
            expected = Counter(["before", "kept-alive", "changing", "leaving"])
            wait_until(lambda: receiver.delivered("/alerts") == expected, "four alerts where they always went")
            assert running.problems() == {}
            assert running.metric("source_up", source="new") == 0
            taken.close()
            reload(running, json.dumps(second))
            feed(f"http://{new}/", "new")
            wait_until(lambda: receiver.delivered("/alerts/other") == {"new": 1}, "an alert by the new route")


def test_a_sink_that_cannot_open_refuses_the_reload(tmp_path: Path) -> None:
    """A new sink that cannot work leaves the other changes of that reload undone, too."""
    with Receiver() as receiver:
        first = json.loads(configuration(tmp_path, {"soc": webhook(receiver)}))
        with Bridge(json.dumps(first), tmp_path) as running:
            second = json.loads(json.dumps(first))
            second["sinks"]["soc"]["url"] += "/changed"
            second["sinks"]["broken"] = {"type": "file", "path": str(tmp_path)}
            reload(running, json.dumps(second), accepted=False)
            assert "sink broken: cannot write" in running.log
            running.feed("one")
            wait_until(lambda: receiver.delivered("/alerts") == {"one": 1}, "the alert where it always went")
        assert receiver.requests[-1].path == "/alerts"


@pytest.mark.parametrize("change", [{"spool": {"path": "/elsewhere/spool.db"}}, {"admin": None}])
def test_what_only_a_restart_can_change_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    """A reload that would move the spool or the admin listener is refused, with what to do."""
    with Receiver() as receiver:
        first = json.loads(configuration(tmp_path, {"soc": webhook(receiver)}))
        with Bridge(json.dumps(first), tmp_path) as running:
            reload(running, json.dumps(first | change), accepted=False)
            assert "change with a restart only" in running.log


def test_a_removed_sink_is_given_what_waits_or_it_is_told(tmp_path: Path) -> None:
    """What a removed sink cannot take stays, is told at each start with what to do, and is shown as waiting."""
    with Receiver() as receiver:
        dead = {"type": "webhook", "url": "http://127.0.0.1:1/"}
        both = configuration(tmp_path, {"soc": webhook(receiver), "gone": dead})
        one = configuration(tmp_path, {"soc": webhook(receiver)})
        told = "alerts wait for a sink that the configuration does not have"
        with Bridge(both, tmp_path) as running:
            running.feed(*names(5))
            wait_until(lambda: "sink gone" in running.problems(), "the breaker to open")
            reload(running, one)
            assert [line["sink"] for line in running.log_lines if told in line["event"]] == ["gone"]
            assert running.problems() == {}
            assert running.metric("spool_alerts", sink="gone") == 5
        with running:
            assert len([line for line in running.log_lines if told in line["event"]]) == 2
            reload(running, configuration(tmp_path, {"soc": webhook(receiver), "gone": webhook(receiver, "/back")}))
            wait_until(lambda: receiver.delivered("/alerts/back") == Counter(names(5)), "what waited")
    assert receiver.delivered("/alerts") == Counter(names(5))


def test_reloads_under_load_lose_nothing(tmp_path: Path) -> None:
    """Routes, a sink and a listener change again and again while alerts come by file and by HTTP: each arrives."""
    with Receiver() as receiver:
        base = json.loads(configuration(tmp_path, {"soc": webhook(receiver), "b": webhook(receiver, "/b")}))
        accepted: list[str] = []
        stop = threading.Event()

        def stream() -> None:
            with kept_alive(running.source_url("http")) as connection:
                for name in names(100_000, "http"):
                    if stop.is_set():
                        return
                    assert send(connection, name) == 200
                    accepted.append(name)

        def write() -> None:
            with (tmp_path / "events.jsonl").open("ab", buffering=0) as file:
                for name in names(100_000, "file"):
                    if stop.wait(0.001):
                        return
                    file.write(falco(name) + b"\n")
                    accepted.append(name)

        with Bridge(json.dumps(base), tmp_path) as running:
            threads = [threading.Thread(target=work) for work in (stream, write)]
            for thread in threads:
                thread.start()
            for number in range(8):
                changed = json.loads(json.dumps(base))
                changed["routes"] = [{"name": f"all {number}", "sinks": [("soc", "b")[number % 2]]}]
                changed["sinks"]["soc"]["batch"] = {"max_alerts": 10 + number}
                changed["sources"]["file"]["poll"] = f"{10 + number}ms"
                reload(running, json.dumps(changed))
            stop.set()
            for thread in threads:
                thread.join()
            wait_until(lambda: {marker(alert) for alert in receiver.alerts} == set(accepted), "every alert")
            assert receiver.delivered("/alerts/b")
