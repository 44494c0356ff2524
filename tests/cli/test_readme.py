"""The README shows what really happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from adsbridge.cli import app

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_it_shows_what_the_demonstration_prints() -> None:
    """Every line that the README shows of the demonstration stands in its output, in that order."""
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    lines = [line for line in shown[1].splitlines() if line != "…"]
    demonstration = [sys.executable, "-m", "adsbridge", "demo"]
    output = subprocess.run(demonstration, capture_output=True, text=True, check=True).stdout
    printed = iter(output.splitlines())
    missing = [line for line in lines if line not in printed]  # `in` takes the lines up to the one it finds
    assert len(lines) > 10
    assert missing == []


@pytest.mark.parametrize(
    "command",
    [*(one.name or one.callback.__name__ for one in app.registered_commands if one.callback), "queue", "packs"],
)
def test_it_names_every_command(command: str) -> None:
    """A newcomer finds each command in the README."""
    assert re.search(rf"(adsbridge|make) {command}\b", README)
