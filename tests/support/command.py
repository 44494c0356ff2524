"""The command line, run as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import structlog
from typer.testing import CliRunner

from adsbridge.cli import app
from adsbridge.errors import AdsbridgeError

DATA = Path(__file__).parents[1] / "data"
PATIENCE = 60.0  # seconds; a bound against hanging, not a claim


def adsbridge(
    *arguments: str | Path,
    stdin: bytes = b"",
    cwd: Path | None = None,
    python_path: Path | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run ``adsbridge`` with arguments; what it wrote, and its exit status."""
    paths = [str(python_path or ""), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    path = os.pathsep.join(os.path.abspath(one) for one in paths if one)
    inherited = {name: value for name, value in os.environ.items() if name != "ADSBRIDGE_CONFIG"}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "adsbridge", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env={**inherited, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "200", **environment},
        timeout=PATIENCE,
        check=False,
    )
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()
    return subprocess.CompletedProcess(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def quick(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same without a process of its own, a hundred times faster; for commands that only read and print."""
    environment = {"ADSBRIDGE_CONFIG": None, "NO_COLOR": "1", "COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    try:
        ended = CliRunner(env=environment).invoke(app, [*map(str, arguments)])
    finally:
        structlog.reset_defaults()  # the log went to a stream that is closed now
    status, stderr = ended.exit_code, ended.stderr
    if isinstance(ended.exception, AdsbridgeError):
        status, stderr = 2, f"{stderr}adsbridge: {ended.exception}\n"
    elif ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return subprocess.CompletedProcess(list(arguments), status, ended.stdout, stderr)
