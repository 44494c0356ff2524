"""The wheel is all that an admin needs: it carries the content, and works where there is no checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, python_path: Path | None = None, python: Path | str = sys.executable) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "ADSBRIDGE_CONFIG"}}
    if python_path is not None:
        environment["PYTHONPATH"] = str(python_path)
    ended = subprocess.run(
        [python, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel, and nothing else, is installed."""
    folder = tmp_path_factory.mktemp("installed")
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(*command, "--target", folder, wheel, cwd=folder, python=_python_with_pip())
    return folder


def _python_with_pip() -> Path:
    """This interpreter, or the one that its virtual environment was made from: that needs no pip of its own."""
    candidates = [Path(sys.executable), Path(sys.executable).resolve()]
    asking = (subprocess.run([one, "-m", "pip", "--version"], capture_output=True, check=False) for one in candidates)
    return next(one for one, asked in zip(candidates, asking, strict=True) if asked.returncode == 0)


def files(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob(pattern) if path.is_file()}


def test_the_wheel_carries_the_content(wheel: Path) -> None:
    """Each strategy, rule file, query and pack, the demonstration's recordings and the data are in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    content = set().union(*(files(ROOT, f"{name}/**/*") for name in ("strategies", "falco_rules", "packs")))
    own = set().union(*(files(ROOT / "bridge", f"adsbridge/{name}/*.*") for name in ("demo/recordings", "data")))
    assert len(content) > 10
    assert len(own) > 3
    assert {f"adsbridge/content/{name}" for name in content} - held == set()
    assert {name for name in own if not name.endswith(".pyc")} - held == set()
    assert {"adsbridge/py.typed", "adsbridge/cli/__init__.py"} <= held


def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    """No test, cache or secret slips in: all is the package and its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if not name.startswith(("adsbridge/", "adsbridge-"))] == []
    assert [name for name in names if "test" in name or "__pycache__" in name or "/." in name] == []


def test_the_installed_wheel_finds_its_strategies(installed: Path, tmp_path: Path) -> None:
    """Far from any checkout, replay tags a recorded alert with its strategy."""
    recording = ROOT / "tests/data/falco/main/file_output.jsonl"
    alerts = run("-m", "adsbridge", "replay", recording, cwd=tmp_path, python_path=installed).splitlines()
    assert len(alerts) == 25
    assert any(json.loads(line).get("strategy", {}).get("id") == "ADS-0001" for line in alerts)


def test_the_installed_wheel_knows_its_content(installed: Path, tmp_path: Path) -> None:
    """Strategies come from the wheel itself, its packs are right and in step, and its configuration is, too."""
    printed = run("-m", "adsbridge", "strategies", "ADS-0002", cwd=tmp_path, python_path=installed)
    assert f"{installed}/adsbridge/content/strategies/ADS-0002-" in printed
    for command in (["packs", "check"], ["packs", "build", "--verify"], ["init", "c.yaml"]):
        run("-m", "adsbridge", *command, cwd=tmp_path, python_path=installed)
    run("-m", "adsbridge", "check", "--offline", "-c", "c.yaml", cwd=tmp_path, python_path=installed)


def test_the_command_is_installed(installed: Path) -> None:
    """The script ``adsbridge`` comes with the wheel."""
    assert (installed / "bin" / "adsbridge").exists()


def test_the_installed_demonstration_works(installed: Path, tmp_path: Path) -> None:
    """The demonstration's recordings are found in the wheel, and everything is delivered."""
    alerts = run("-m", "adsbridge", "demo", "--json", cwd=tmp_path, python_path=installed).splitlines()
    assert len(alerts) > 10
    assert all(json.loads(line)["id"] for line in alerts)
