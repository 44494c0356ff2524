"""The bridge's own log: one line for each event, and no secrets, whatever goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Literal

import pytest

_PROGRAM = """
import structlog
from adsbridge import logs
logs.configure(form={form!r})

def send(headers):
    raise RuntimeError("a defect")

try:
    send({{"Authorization": "hush-hush"}})
except RuntimeError:
    structlog.get_logger().exception("failed", sink="soc", said="\\x1b[2J\\r\\nforged")
"""


def logged(form: Literal["text", "json"]) -> str:
    """What a defect leaves in the log of a process of its own."""
    program = _PROGRAM.format(form=form)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_shows_no_values(form: Literal["text", "json"]) -> None:
    """A defect is told with its traceback, but not with what variables held: headers and keys are among them."""
    shown = logged(form)
    assert "a defect" in shown
    assert "in send" in shown
    assert "hush-hush" not in shown


def test_json_is_one_line() -> None:
    """As JSON an event is one line, line ends and control characters in it escaped."""
    (line,) = logged("json").splitlines()
    record = json.loads(line)
    assert (record["event"], record["level"], record["sink"]) == ("failed", "error", "soc")
    assert line.isprintable()


def test_text_cannot_steer_the_terminal() -> None:
    """As text, control characters in a value are shown as escapes."""
    assert "\x1b" not in logged("text")
