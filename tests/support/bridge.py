"""A bridge in a process of its own, started as an admin starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.alerts import falco

PATIENCE = 30.0  # seconds; a bound against hanging, not a claim


RETRY = {
    "first_wait": "10ms",
    "max_wait": "100ms",
    "breaker_failures": 3,
    "breaker_pause": "100ms",
    "timeout": "5s",
}
"""Retry settings with which a test need not wait long."""


def configuration(folder: Path, sinks: dict[str, dict[str, Any]], **changes: Any) -> str:
    """A configuration with a Falco listener ``http``, a Falco file ``file`` and fast retries, as YAML (JSON is)."""
    ours = {"batch": {"max_wait": "10ms"}, "retry": RETRY}
    whole = {
        "sources": {
            "http": {"type": "falco_http", "listen": "127.0.0.1:0"},
            "file": {"type": "falco_file", "path": str(folder / "events.jsonl"), "poll": "20ms"},
        },
        "sinks": {name: (ours if settings["type"] == "webhook" else {}) | settings for name, settings in sinks.items()},
        "spool": {"path": str(folder / "spool.db")},
        "admin": {"listen": "127.0.0.1:0"},
        **changes,
    }
    return json.dumps(whole, indent=1)


class Bridge:
    """``adsbridge run`` on a configuration; ready when it says so to its NOTIFY_SOCKET.

    Args:
        stdout: a file descriptor for its standard output; left out, that is kept in ``output``.
    """

    def __init__(self, config: str, folder: Path, *, stdout: int | None = None, **environment: str) -> None:
        self.path = folder / "adsbridge.yaml"
        self.path.write_text(config)
        self.log_path = folder / "bridge.log"
        self._output_path = folder / "bridge.out"
        self._notify_path = folder / "notify"
        self._environment = environment
        self._stdout = stdout
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it without waiting until it is ready."""
        with self.log_path.open("ab") as log, self._output_path.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "adsbridge", "run", "-c", str(self.path)],
                stdout=output if self._stdout is None else self._stdout,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "NOTIFY_SOCKET": str(self._notify_path), **self._environment},
            )
        return self.process

    def start(self) -> Bridge:
        """Start it and wait until it is ready."""
        self._notify_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self._notify_path))
            notify.settimeout(0.1)
            process = self.launch()
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    raise AssertionError(f"the bridge ended with {process.returncode}:\n{self.log}")
                try:
                    if notify.recv(1024) == b"READY=1":
                        return self
                except TimeoutError:
                    continue
        raise AssertionError(f"the bridge did not become ready:\n{self.log}")

    def __enter__(self) -> Bridge:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def stop(self) -> int:
        """Ask it to stop with SIGTERM; its exit status."""
        return self.end(signal.SIGTERM)

    def kill(self) -> int:
        """End it at once with SIGKILL."""
        return self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the bridge did not end on {number.name}:\n{self.log}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def log(self) -> str:
        """All that it wrote to standard error."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def output(self) -> str:
        """All that it wrote to standard output."""
        return self._output_path.read_text(errors="replace")

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        """Its log, decoded."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def feed(self, *names: str, source: str = "http") -> None:
        """Post marked alerts in one request, so that they wait as one batch."""
        feed(self.source_url(source), *names)

    def source_url(self, name: str) -> str:
        """Where an HTTP source listens, by its log."""
        found = [line["address"] for line in self.log_lines if line.get("source") == name and "address" in line]
        return str(found[-1])

    def metrics(self) -> str:
        """What /metrics shows."""
        return get(f"{self.admin_url}/metrics")[1].decode()

    def metric(self, name: str, **labels: str) -> float:
        """One value of /metrics; 0 when it is not there yet."""
        for family in text_string_to_metric_families(self.metrics()):
            for sample in family.samples:
                if sample.name == f"adsbridge_{name}" and sample.labels == labels:
                    return float(sample.value)
        return 0.0

    def problems(self) -> dict[str, str]:
        """What /readyz says stands in the way; empty when it says that the bridge is ready."""
        status, body = get(f"{self.admin_url}/readyz")
        answer = json.loads(body)
        assert (status, answer["status"]) in {(200, "ready"), (503, "not ready")}
        return dict(answer.get("problems", {}))

    @property
    def admin_url(self) -> str:
        """Where the admin listener is, by the log."""
        return str([line for line in self.log_lines if line["event"] == "serving metrics and health"][-1]["address"])


def get(url: str) -> tuple[int, bytes]:
    """GET; the status and the answer."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def post(url: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    """POST a body; the status and the answer."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def feed(url: str, *names: str) -> None:
    """Post marked alerts in one request."""
    status, answer = post(url, b"[" + b",".join(falco(name) for name in names) + b"]")
    assert status == 200, answer


def wait_until(condition: Any, what: str, patience: float = PATIENCE) -> None:
    """Wait until a condition holds; fails, saying what was waited for, when it takes too long."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited {patience:g} s in vain for {what}")
