"""Loss: whatever moment the bridge is killed at, every event that was handed to it arrives."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.alerts import falco, marker
from support.bridge import Bridge, wait_until
from support.receiver import Answer, Receiver, Request

KILLS = 24
_ROTATE = 150  # lines
_CONFIG = """\
sources:
  by_http: {{type: falco_http, listen: "127.0.0.1:0", request_timeout: 2s}}
  by_file: {{type: falco_file, path: {folder}/events.jsonl, poll: 20ms}}
sinks:
  soc:
    type: webhook
    url: {url}
    batch: {{max_alerts: 50, max_wait: 10ms}}
    retry: {{first_wait: 50ms, max_wait: 200ms, breaker_failures: 3, breaker_pause: 100ms, timeout: 2s}}
spool: {{path: {folder}/spool.db}}
admin: null
"""


class Whims:
    """Answers of a receiver in trouble: mostly fine, else 500, 429, nothing, or fine but the answer gets lost."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, _: Request) -> Answer:
        answers = (
            Answer(), Answer(500), Answer(429, {"Retry-After": "0"}), Answer(429, {"Retry-After": "1"}), Answer(0),
            Answer(lost=True),
        )  # fmt: skip
        with self._lock:
            return self._random.choices(answers, weights=(70, 8, 6, 1, 8, 7))[0]


class Feeder(threading.Thread):
    """Makes events until told to stop; what it handed over stands in ``sent``."""

    def __init__(self, seed: str) -> None:
        super().__init__(daemon=True)
        self.random = random.Random(seed)
        self.sent: list[str] = []
        self.stopping = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.feed()
        except BaseException as error:
            self.failure = error

    def feed(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """No new events; wait until those under way are handed over."""
        self.stopping.set()
        self.join(60)
        assert not self.is_alive(), "a feeder hangs"
        if self.failure is not None:
            raise self.failure


class FileWriter(Feeder):
    """Appends to a file as Falco does; now and then another renames it, as logrotate does."""

    def __init__(self, seed: str, path: Path) -> None:
        super().__init__(seed)
        self._path = path
        self.rotations = 0

    def feed(self) -> None:
        while not self.stopping.is_set():
            with self._path.open("ab", buffering=0) as file:
                for _ in range(_ROTATE):
                    name = f"file-{len(self.sent)}"
                    line = falco(name) + b"\n"
                    cut = self.random.choice((len(line), len(line), len(line) // 2))
                    file.write(line[:cut])
                    file.write(line[cut:])
                    self.sent.append(name)
                    if self.stopping.wait(self.random.uniform(0, 0.01)):
                        return
            self._rotate()

    def _rotate(self) -> None:
        for number in range(self.rotations, 0, -1):
            self._numbered(number).rename(self._numbered(number + 1))
        self._path.rename(self._numbered(1))
        self.rotations += 1

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class Sender(Feeder):
    """Posts alerts, one or some at a time, and each again until it is answered with 200."""

    def __init__(self, seed: str, name: str, where: dict[str, str]) -> None:
        super().__init__(seed)
        self._prefix = name
        self._where = where
        self.resent = 0

    def feed(self) -> None:
        while not self.stopping.is_set():
            start = len(self.sent)
            names = [f"{self._prefix}-{start + index}" for index in range(self.random.choice((1, 1, 1, 3)))]
            alerts = [falco(name) for name in names]
            body = alerts[0] if len(alerts) == 1 else b"[" + b",".join(alerts) + b"]"
            for accepted in self._attempts(body):
                if accepted:
                    break
                self.resent += 1
            self.sent += names
            self.stopping.wait(self.random.uniform(0, 0.02))

    def _attempts(self, body: bytes) -> Iterator[bool]:
        while True:
            connection = http.client.HTTPConnection(urlsplit(self._where["url"]).netloc, timeout=5)
            try:
                connection.request("POST", "/", body, {"Content-Type": "application/json"})
                yield connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
                yield False
            finally:
                connection.close()


def test_no_event_is_lost_when_the_bridge_is_killed_again_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every event arrives at least once over 24 SIGKILLs at random points, and a duplicate has its first one's id."""
    seed = os.environ.get("KILL_SEED") or str(random.SystemRandom().randrange(10**6))
    chance = random.Random(seed)
    with capsys.disabled():
        print(f"\nkill test: KILL_SEED={seed}")
    with Receiver(Whims(f"{seed} receiver")) as receiver:
        bridge = Bridge(_CONFIG.format(folder=tmp_path, url=receiver.url), tmp_path)
        where: dict[str, str] = {}
        bridge.start()
        where["url"] = bridge.source_url("by_http")
        writer = FileWriter(f"{seed} file", tmp_path / "events.jsonl")
        senders = [Sender(f"{seed} http {number}", f"http{number}", where) for number in range(2)]
        feeders: list[Feeder] = [writer, *senders]
        for feeder in feeders:
            feeder.start()
        try:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0, 1))
                bridge.kill()
                if chance.random() < 0.25:  # killed while it starts, too
                    bridge.launch()
                    time.sleep(chance.uniform(0.3, 1.0))
                    bridge.kill()
                bridge.start()
                where["url"] = bridge.source_url("by_http")
            for feeder in feeders:
                feeder.finish()
            expected = {name for feeder in feeders for name in feeder.sent}
            with suppress(AssertionError):  # which ones are missing is told below
                wait_until(lambda: {marker(alert) for alert in receiver.alerts} >= expected, "every event", 60)
        finally:
            for feeder in feeders:
                feeder.stopping.set()
            status = bridge.stop()
        alerts = receiver.alerts
    duplicates = len(alerts) - len(expected)
    with capsys.disabled():
        print(
            f"kill test: {KILLS} kills, {len(expected)} events ({len(writer.sent)} by file over {writer.rotations}"
            f" rotations, {sum(len(sender.sent) for sender in senders)} by HTTP with"
            f" {sum(sender.resent for sender in senders)} requests repeated), {duplicates} duplicates"
        )
    names, ids = defaultdict(set), defaultdict(set)
    for alert in alerts:
        names[alert["id"]].add(marker(alert))
        ids[marker(alert)].add(alert["id"])
    assert sorted(expected - ids.keys()) == [], "lost"
    assert sorted(ids.keys() - expected) == [], "never sent"
    assert {name: found for name, found in ids.items() if len(found) > 1} == {}
    assert {identity: found for identity, found in names.items() if len(found) > 1} == {}
    assert status == 0
    assert json.loads(bridge.log.splitlines()[-1])["waiting"] == {}
