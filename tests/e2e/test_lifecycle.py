"""Start, stop, reload: an alert that was accepted is delivered or kept, and what did not change goes on."""

from __future__ import annotations

import http.client
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.alerts import falco, marker, names
from support.bridge import RETRY, Bridge, configuration, feed, get, post, wait_until
from support.receiver import Answer, Receiver


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_delivered_before_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    """Told to stop with work under way, the bridge delivers what it accepted and ends with status 0."""
    with Receiver(lambda _: Answer(delay=0.05)) as receiver:
        sink = webhook(receiver, batch={"max_alerts": 10, "max_wait": "10ms"})
        with Bridge(configuration(tmp_path, {"soc": sink}), tmp_path) as running:
            running.feed(*names(200))
            assert running.end(number) == 0
    assert receiver.delivered() == Counter(names(200))
    assert events(running, "stopped")[-1]["waiting"] == {}
    assert running.log_lines[-1]["event"] == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_cannot_be_delivered_waits_for_the_next_start(tmp_path: Path, number: signal.Signals) -> None:
    """With its receiver down the bridge still ends with status 0, says what waits, and delivers that later."""
    down = threading.Event()
    down.set()
    with Receiver(lambda _: Answer(500 if down.is_set() else 204)) as receiver:
        running = Bridge(configuration(tmp_path, {"soc": webhook(receiver)}), tmp_path).start()
        running.feed(*names(20))
        wait_until(lambda: receiver.requests, "an attempt")
        assert running.end(number) == 0
        assert events(running, "stopped")[-1]["waiting"] == {"soc": 20}
        assert receiver.alerts == []
        down.clear()
        with running:
            wait_until(lambda: len(receiver.alerts) >= 20, "20 alerts")
    assert receiver.delivered() == Counter(names(20))


def test_a_receiver_that_hangs_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    """What is under way when drain_timeout is over is given up and stays in the spool."""
    release = threading.Event()

    def hang(_: object) -> Answer:
        release.wait(30)
        return Answer(0)

    with Receiver(hang) as receiver:
        sink = webhook(receiver, retry=RETRY | {"timeout": "60s"})
        running = Bridge(configuration(tmp_path, {"soc": sink}, drain_timeout="100ms"), tmp_path).start()
        running.feed("one")
        assert running.stop() == 0
        assert events(running, "stopped")[-1]["waiting"] == {"soc": 1}
        release.set()
        receiver.decide = lambda _: Answer()
        with running:
            wait_until(lambda: receiver.alerts, "the alert")


def test_requests_under_way_are_answered_when_it_stops(tmp_path: Path) -> None:
    """A sender whose request the bridge has taken gets its answer, and what was answered 200 is delivered."""
    with Receiver() as receiver:
        running = Bridge(configuration(tmp_path, {"soc": webhook(receiver)}), tmp_path).start()
        url = running.source_url("http")
        accepted: list[str] = []

        def stream(prefix: str) -> None:
            with kept_alive(url) as connection:
                for name in names(100_000, prefix):
                    try:
                        if send(connection, name) != 200:
                            return
                    except (OSError, http.client.HTTPException):
                        return
                    accepted.append(name)

        threads = [threading.Thread(target=stream, args=(f"s{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(accepted) > 100, "a stream of alerts")
        assert running.stop() == 0
        for thread in threads:
            thread.join()
    assert set(receiver.delivered()) >= set(accepted)


def test_a_file_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Over clean restarts each line of a file arrives exactly once."""
    with Receiver() as receiver, (tmp_path / "events.jsonl").open("ab", buffering=0) as file:
        running = Bridge(configuration(tmp_path, {"soc": webhook(receiver)}), tmp_path)
        for start in range(3):
            with running:
                file.write(b"".join(falco(name) + b"\n" for name in names(50, f"part{start}")))
                wait_until(lambda: receiver.alerts, "an alert")
            file.write(b"".join(falco(name) + b"\n" for name in names(5, f"between{start}")))
        with running:
            wait_until(lambda: len(receiver.alerts) >= 165, "every line")
    assert set(receiver.delivered().values()) == {1}
    assert len(receiver.delivered()) == 165


def test_a_failing_sink_never_slows_another(tmp_path: Path) -> None:
    """While one of two sinks hangs and another fails, the third gets every alert."""
    release = threading.Event()

    def hang(_: object) -> Answer:
        release.wait(60)
        return Answer(500)

    with Receiver() as good, Receiver(hang) as hanging:
        sinks = {
            "good": webhook(good),
            "hanging": webhook(hanging),
            "failing": {"type": "webhook", "url": "http://127.0.0.1:1/"},
        }
        with Bridge(configuration(tmp_path, sinks, drain_timeout="100ms"), tmp_path) as running:
            for start in range(10):
                running.feed(*names(20, f"part{start}"))
            wait_until(lambda: len(good.alerts) == 200, "all at the good sink")
            assert len(hanging.requests) == 0
            assert running.metric("spool_alerts", sink="good") == 0
            assert running.metric("spool_alerts", sink="hanging") == 200
            release.set()


def test_systemd_is_told_what_it_wants_to_know(tmp_path: Path) -> None:
    """READY=1 once alerts can flow, WATCHDOG=1 while the loop runs, RELOADING=1 in a reload, STOPPING=1 at the end."""
    with Receiver() as receiver, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        running = Bridge(configuration(tmp_path, {"soc": webhook(receiver)}), tmp_path, WATCHDOG_USEC="200000")
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(30)

        def until(wanted: str) -> list[str]:
            heard: list[str] = []
            while not heard or not heard[-1].startswith(wanted):
                heard.append(notify.recv(1024).decode())
            return heard

        with running.launch():
            assert until("READY=1") == ["READY=1"]
            running.feed("one")
            until("WATCHDOG=1")
            until("WATCHDOG=1")
            running.signal(signal.SIGHUP)
            state = until("RELOADING=1")[-1]
            assert int(state.partition("MONOTONIC_USEC=")[2]) <= time.monotonic_ns() // 1000
            assert set(until("READY=1")[:-1]) <= {"WATCHDOG=1"}
            running.signal(signal.SIGTERM)
            assert set(until("STOPPING=1")[:-1]) <= {"WATCHDOG=1"}


def test_a_watchdog_for_another_process_is_left_alone(tmp_path: Path) -> None:
    """Without WATCHDOG_USEC, or with another process's WATCHDOG_PID, nothing but the states is sent."""
    with Receiver() as receiver, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        text = configuration(tmp_path, {"soc": webhook(receiver)})
        running = Bridge(text, tmp_path, WATCHDOG_USEC="20000", WATCHDOG_PID="1")
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(30)
        with running.launch():
            assert notify.recv(1024) == b"READY=1"
            running.feed("one")
            wait_until(lambda: receiver.alerts, "the alert")
            running.signal(signal.SIGTERM)
            assert notify.recv(1024) == b"STOPPING=1"


def test_metrics_and_health_are_served(tmp_path: Path) -> None:
    """/metrics counts what happened, /healthz and /readyz answer 200, anything else says what there is."""
    with Receiver() as receiver, Bridge(configuration(tmp_path, {"soc": webhook(receiver)}), tmp_path) as running:
        running.feed(*names(3))
        wait_until(lambda: running.metric("alerts_delivered_total", sink="soc") == 3, "delivery")
        assert running.metric("events_received_total", source="http") == 3
        assert running.metric("source_up", source="http") == running.metric("source_up", source="file") == 1
        assert running.metric("delivery_latency_seconds_count", sink="soc") >= 1
        assert running.metric("spool_alerts", sink="soc") == 0
        assert get(f"{running.admin_url}/healthz") == (200, b'{"status": "ok"}')
        assert get(f"{running.admin_url}/readyz") == (200, b'{"status": "ready", "problems": {}}')
        assert get(f"{running.admin_url}/")[0] == 404
        assert post(f"{running.admin_url}/metrics", b"")[0] == 405


def test_a_full_spool_is_not_ready(tmp_path: Path) -> None:
    """A spool at max_size answers senders with 503 and what to do, is not ready, and is again when there is room."""
    down = threading.Event()
    down.set()
    with Receiver(lambda _: Answer(500 if down.is_set() else 204)) as receiver:
        spool = {"path": str(tmp_path / "spool.db"), "max_size": "4KiB"}
        with Bridge(configuration(tmp_path, {"soc": webhook(receiver)}, spool=spool), tmp_path) as running:
            url = running.source_url("http")
            taken: list[str] = []
            for number in range(1000):
                status, answer = post(url, falco(f"alert-{number}-{os.urandom(200).hex()}"))
                if status == 503:
                    break
                taken.append(f"alert-{number}")
            assert "spool.max_size" in json.loads(answer)["error"]
            assert running.problems()["spool"] == "full"
            (tmp_path / "events.jsonl").write_bytes(falco("by-file") + b"\n")
            wait_until(lambda: "cannot take records; trying again" in running.log, "the file source to wait")
            down.clear()
            wait_until(lambda: running.problems() == {}, "readiness")
            running.feed("after")
            wait_until(lambda: len(receiver.alerts) == len(taken) + 2, "everything")
    assert set(receiver.delivered()) >= {"by-file", "after"}


def test_log_lines_are_json(tmp_path: Path) -> None:
    """When standard error is no terminal, every line of the log is a JSON object with time, level and event."""
    with Receiver(lambda _: Answer(500)) as receiver:
        with Bridge(configuration(tmp_path, {"soc": webhook(receiver)}), tmp_path) as running:
            running.feed("one")
            post(running.source_url("http"), b"{broken")
            wait_until(lambda: "sink soc" in running.problems(), "the breaker to open")
            reload(running, "broken: [", accepted=False)
        for line in running.log.splitlines():
            record = json.loads(line)
            assert {"timestamp", "level", "event"} <= record.keys()


def test_in_a_terminal_the_log_is_for_people(tmp_path: Path) -> None:
    """When standard error is a terminal, the log is text; secrets in local variables are not part of it."""
    master, slave = pty.openpty()
    text = configuration(
        tmp_path, {"soc": {"type": "webhook", "url": "http://127.0.0.1:1/", "headers": {"X-A": "hush"}}}
    )
    (tmp_path / "adsbridge.yaml").write_text(text)
    with subprocess.Popen(
        [sys.executable, "-m", "adsbridge", "run", "-c", str(tmp_path / "adsbridge.yaml")],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave,
    ) as process:  # fmt: skip
        os.close(slave)
        shown = b""
        while b"ready" not in shown:
            shown += os.read(master, 4096)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    os.close(master)
    assert b"taking events" in shown
    assert b'{"' not in shown


def test_without_a_configuration_it_runs_on_safe_defaults(tmp_path: Path) -> None:
    """Without a file: Falco's listener on loopback, alerts on standard output, the spool in STATE_DIRECTORY."""
    for port in (2801, 2802):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                pytest.skip(f"port {port} is in use here")
    environment = {name: value for name, value in os.environ.items() if name != "ADSBRIDGE_CONFIG"}
    with (tmp_path / "out").open("wb") as out, (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "adsbridge", "run"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=log,
            env={**environment, "STATE_DIRECTORY": str(tmp_path / "state")},
        )  # fmt: skip
        try:
            wait_until(lambda: "safe defaults" in (tmp_path / "log").read_text(), "readiness")
            feed("http://127.0.0.1:2801/", "one")
            wait_until(lambda: (tmp_path / "out").read_text().endswith("\n"), "the alert")
            assert get("http://127.0.0.1:2802/readyz")[0] == 200
        finally:
            process.terminate()
            assert process.wait(30) == 0
    assert marker(json.loads((tmp_path / "out").read_text())) == "one"
    assert (tmp_path / "state" / "spool.db").exists()
    addresses = [json.loads(line).get("address") for line in (tmp_path / "log").read_text().splitlines()]
    assert {address for address in addresses if address} == {"http://127.0.0.1:2801/", "http://127.0.0.1:2802"}


@pytest.mark.parametrize("part", ["source", "admin", "spool"])
def test_what_cannot_start_is_told_and_ends_with_status_2(tmp_path: Path, part: str) -> None:
    """A port in use or a spool that another bridge holds: one clear line, exit status 2, no traceback."""
    with Receiver() as receiver, socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        every: dict[str, dict[str, Any]] = {
            "source": {"sources": {"http": {"type": "falco_http", "listen": address}}},
            "admin": {"admin": {"listen": address}},
            "spool": {},
        }
        text = configuration(tmp_path, {"soc": webhook(receiver)})
        (tmp_path / "second").mkdir()
        second = Bridge(configuration(tmp_path, {"soc": webhook(receiver)}, **every[part]), tmp_path / "second")
        if part == "spool":
            with Bridge(text, tmp_path):
                assert second.launch().wait(30) == 2
        else:
            assert second.launch().wait(30) == 2
    told = "another adsbridge works on it" if part == "spool" else f"cannot listen on {address}: "
    last = second.log.splitlines()[-1]
    assert last.startswith("adsbridge: ")
    assert told in last
    assert "Traceback" not in second.log
