"""The file and console sinks: whole lines, whatever happens to the file, the disk or the reader."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.alerts import falco, marker
from support.bridge import RETRY, Bridge, configuration, post, wait_until
from support.places import fill, tmpfs
from support.receiver import Receiver


def bridge(folder: Path, path: Path, **settings: Any) -> Bridge:
    sink = {"type": "file", "path": str(path), "retry": RETRY, "batch": {"max_wait": "10ms"}, **settings}
    return Bridge(configuration(folder, {"archive": sink}), folder)


def empty(running: Bridge, sink: str = "archive") -> None:
    wait_until(lambda: running.metric("spool_alerts", sink=sink) == 0, "an empty spool")


def lines(*paths: Path) -> list[str]:
    """The markers of the alerts in files, each line being one whole alert."""
    content = b"".join(path.read_bytes() for path in paths)
    assert content.endswith(b"\n")
    return [marker(json.loads(line)) for line in content.splitlines()]


def names(start: int, end: int) -> list[str]:
    return [f"alert-{number}" for number in range(start, end)]


def test_alerts_are_appended_as_json_lines(tmp_path: Path) -> None:
    """Each alert is one line of JSON behind what the file held, readable by owner and group only."""
    path = tmp_path / "alerts.jsonl"
    with bridge(tmp_path, path) as running:
        running.feed(*names(0, 5))
        empty(running)
    with bridge(tmp_path, path) as running:
        running.feed(*names(5, 10))
        empty(running)
    assert lines(path) == names(0, 10)
    assert path.stat().st_mode & 0o777 == 0o640


def test_it_rotates_by_itself_and_keeps_so_many(tmp_path: Path) -> None:
    """Beyond max_size the file moves to .1, .2, …; no more than keep of them stay, and no line is torn."""
    path = tmp_path / "alerts.jsonl"
    with bridge(tmp_path, path, max_size="8KiB", keep=3) as running:
        for start in range(0, 60, 2):
            running.feed(*names(start, start + 2))
            empty(running)
    generations = [*(tmp_path / f"alerts.jsonl.{number}" for number in (3, 2, 1)), path]
    assert sorted(tmp_path.glob("alerts.jsonl*")) == sorted(generations)
    found = lines(*generations)
    assert found == names(60 - len(found), 60)
    assert all(4096 < generation.stat().st_size <= 8192 for generation in generations[:-1])


def test_sigusr1_opens_the_file_anew(tmp_path: Path) -> None:
    """After logrotate's rename and SIGUSR1, alerts go to a new file of the old name, and none is lost between."""
    path, moved = tmp_path / "alerts.jsonl", tmp_path / "alerts.jsonl-20260101"
    with bridge(tmp_path, path) as running:
        running.feed("before")
        empty(running)
        path.rename(moved)
        path.touch()  # as logrotate's `create` does
        running.feed("between")
        empty(running)
        running.signal(signal.SIGUSR1)
        wait_until(lambda: _one_more(running, path), "an alert in the new file")
    assert lines(moved)[:2] == ["before", "between"]
    assert len(lines(moved, path)) == len(set(lines(moved, path)))


def _one_more(running: Bridge, path: Path) -> bool:
    running.feed(f"after-{os.urandom(4).hex()}")
    empty(running)
    return path.stat().st_size > 0


def test_sigusr1_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """A stream of SIGUSR1 while alerts are being written tears no line and loses none."""
    path = tmp_path / "alerts.jsonl"
    with bridge(tmp_path, path, batch={"max_alerts": 5, "max_wait": "10ms"}) as running:
        for start in range(0, 300, 20):
            running.feed(*names(start, start + 20))
            for _ in range(10):
                running.signal(signal.SIGUSR1)
        empty(running)
    assert lines(path) == names(0, 300)


def test_a_removed_file_is_made_again(tmp_path: Path) -> None:
    """When somebody removes the file, later alerts go to a new one, not to a file that nobody can read."""
    path = tmp_path / "alerts.jsonl"
    with bridge(tmp_path, path) as running:
        running.feed("before")
        empty(running)
        path.unlink()
        running.feed("after")
        empty(running)
    assert lines(path) == ["after"]


def test_a_line_that_a_crash_left_half_written_stands_alone(tmp_path: Path) -> None:
    """What a crash left behind spoils no line of its own alerts."""
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(b'{"whole":1}\n{"hal')
    with bridge(tmp_path, path) as running:
        running.feed("one")
        empty(running)
    first, half, rest = path.read_bytes().split(b"\n", 2)
    assert (first, half) == (b'{"whole":1}', b'{"hal')
    assert marker(json.loads(rest)) == "one"


def test_a_full_disk_leaves_no_half_line_and_loses_nothing(tmp_path: Path) -> None:
    """While the disk is full the file holds whole lines only; when there is room again, every alert arrives once."""
    with tmpfs(tmp_path / "small", "1m") as small:
        path = small / "alerts.jsonl"
        with bridge(tmp_path, path, batch={"max_alerts": 20, "max_wait": "10ms"}) as running:
            running.feed(*names(0, 10))
            empty(running)
            ballast = fill(small)
            running.feed(*names(10, 100))
            wait_until(lambda: "sink archive" in running.problems(), "the breaker to open")
            found = [marker(json.loads(line)) for line in path.read_bytes().split(b"\n")[:-1]]
            assert found == names(0, len(found))
            assert "No space left on device" in running.log
            ballast.unlink()
            empty(running)
            assert running.problems() == {}
        assert lines(path) == names(0, 100)


@pytest.mark.parametrize("place", ["a-file/alerts.jsonl", "."])
def test_a_file_that_cannot_be_is_told_at_the_start(tmp_path: Path, place: str) -> None:
    """A path where no file can be is an error at the start with exit status 2, not a sink that waits for ever."""
    (tmp_path / "a-file").touch()
    broken = bridge(tmp_path, tmp_path / place)
    assert broken.launch().wait(30) == 2
    assert f"sink archive: cannot write {tmp_path / place}" in broken.log
    assert "Traceback" not in broken.log


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """A named pipe in the file's place, which would block the bridge, is refused at the start."""
    os.mkfifo(tmp_path / "pipe")
    broken = bridge(tmp_path, tmp_path / "pipe")
    assert broken.launch().wait(30) == 2
    assert "it is not a regular file" in broken.log


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\r\n"


@pytest.mark.parametrize("format_", ["json", "text"])
def test_the_console_shows_every_alert_safely(tmp_path: Path, format_: str) -> None:
    """json: one object per line; text: what a process wrote into its command line cannot steer the terminal."""
    running = Bridge(configuration(tmp_path, {"console": {"type": "console", "format": format_}}), tmp_path)
    alert = json.loads(falco("marked"))
    alert["output_fields"]["proc.cmdline"] = f"cat {ESCAPES} marked"
    alert["output_fields"] |= {"container.id": "0123456789ab", "container.name": ESCAPES, "k8s.pod.name": ESCAPES}
    alert |= {"rule": f"rule {ESCAPES}", "hostname": f"host{ESCAPES}"}
    alert["output"] = f"x: Warning headline {ESCAPES} | command=cat {ESCAPES}"
    with running:
        status, answer = post(running.source_url("http"), json.dumps(alert).encode())
        assert status == 200, answer
        empty(running, "console")
    shown = running.output.split("\n")
    if format_ == "json":
        line, rest = shown
        assert (marker(json.loads(line)), rest) == ("marked", "")
        return
    assert shown[0].startswith(alert["time"][:10])
    assert any("headline" in line for line in shown)
    assert {character for line in shown for character in line if not character.isprintable()} == set()
    assert not any(line.startswith("evil") for line in shown)


def test_a_hung_console_stalls_nothing_else(tmp_path: Path) -> None:
    """While nobody reads standard output, other sinks and sources go on, and the bridge still stops when told."""
    reading, writing = os.pipe()
    with Receiver() as receiver:
        sinks: dict[str, dict[str, Any]] = {
            "console": {"type": "console", "retry": RETRY | {"timeout": "50ms"}},
            "archive": {"type": "file", "path": str(tmp_path / "alerts.jsonl"), "retry": RETRY},
            "soc": {"type": "webhook", "url": receiver.url, "gzip": True},
        }
        text = configuration(tmp_path, sinks, drain_timeout="200ms")
        with Bridge(text, tmp_path, stdout=writing) as running:
            for number in range(30):
                with (tmp_path / "events.jsonl").open("ab") as file:
                    file.writelines(falco(f"alert-{number}-{index}") + b"\n" for index in range(20))
                running.feed(f"http-{number}")
            wait_until(lambda: "sink console" in running.problems(), "the console to count as down")
            timeouts = running.metric("delivery_attempts_total", sink="console", outcome="timeout")
            wait_until(
                lambda: running.metric("delivery_attempts_total", sink="console", outcome="timeout") > timeouts + 8,
                "more timeouts than the process has threads",
            )
            with (tmp_path / "events.jsonl").open("ab") as file:
                file.write(falco("last") + b"\n")
            wait_until(lambda: len(receiver.alerts) == 631, "all alerts at the webhook")
            wait_until(lambda: len(lines(tmp_path / "alerts.jsonl")) == 631, "all alerts in the file")
            assert running.stop() == 0
    os.close(reading)
    os.close(writing)
    assert set(Counter(marker(alert) for alert in receiver.alerts).values()) == {1}
