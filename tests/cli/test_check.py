"""``adsbridge check`` and ``init``, and what every command has in common: its exit status and its errors."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from support.command import DATA, adsbridge, quick
from support.receiver import Receiver

CONFIG = """\
sources:
  falco: {{type: falco_http, listen: "127.0.0.1:0"}}
sinks:
  out: {{type: file, path: {folder}/out/alerts.jsonl}}
  soc: {{type: webhook, url: "{url}"}}
spool: {{path: {folder}/spool/spool.db}}
"""


def write(folder: Path, url: str) -> Path:
    (folder / "out").mkdir(exist_ok=True)
    path = folder / "c.yaml"
    path.write_text(CONFIG.format(folder=folder, url=url))
    return path


@pytest.fixture
def nobody() -> str:
    """An address on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/secret-path"


def test_check_is_silent_about_nothing_when_all_is_right(tmp_path: Path) -> None:
    """Status 0: what was counted, that every sink can be reached; nothing was sent, and no spool was made."""
    with Receiver() as receiver:
        path = write(tmp_path, receiver.url)
        ended = adsbridge("check", "-c", path)
        assert receiver.alerts == []
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        f"{path}: 1 source, 0 routes, 2 sinks, 3 strategies",
        "the configuration is right, and every sink can be reached",
    ]
    assert not (tmp_path / "spool/spool.db").exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_check_names_what_cannot_be_reached(tmp_path: Path, nobody: str) -> None:
    """Status 1: the sink that does not answer and the file that cannot be written are named, each once, all of them."""
    path = write(tmp_path, nobody)
    (tmp_path / "out").rmdir()
    (tmp_path / "out").write_text("a file where a folder should be")
    (tmp_path / "spool").write_text("a file where a folder should be")
    ended = adsbridge("check", "-c", path)
    assert ended.returncode == 1
    out, soc, spool = ended.stderr.splitlines()
    assert out == f"sink out: cannot write {tmp_path}/out/alerts.jsonl: {tmp_path}/out is no folder"
    assert soc.startswith(f"sink soc: {nobody.removesuffix('/secret-path')}: Cannot connect to host 127.0.0.1:")
    assert spool.startswith("spool: ")
    assert "secret-path" not in ended.stderr
    assert "is right" not in ended.stdout


def test_check_offline_tries_nothing(tmp_path: Path, nobody: str) -> None:
    """With --offline, sinks that cannot be reached are no matter, and that is said."""
    ended = quick("check", "--offline", "-c", write(tmp_path, nobody))
    assert ended.returncode == 0
    assert ended.stdout.endswith("the configuration is right (sinks not tried)\n")
    assert list((tmp_path / "out").iterdir()) == []


def test_check_tells_every_mistake(tmp_path: Path) -> None:
    """Status 2: every mistake as file:line:column on standard error, and how many; nothing is tried."""
    path = tmp_path / "c.yaml"
    path.write_text("sources: {a: {type: falco_htp}}\nsinks: {b: {type: file}}\nrouts: []\n")
    ended = quick("check", "-c", path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        f"{path}:1:21: sources.a.type: there is no 'falco_htp' among the sources; did you mean 'falco_http'?",
        f"{path}:2:9: sinks.b.path: is missing",
        f"{path}:3:1: routs: unknown key; did you mean 'routes'?",
        "3 mistakes",
    ]


def test_the_configuration_may_be_named_by_the_environment(tmp_path: Path, nobody: str) -> None:
    """ADSBRIDGE_CONFIG names the file; without it the safe defaults are checked, and that is said."""
    path = write(tmp_path, nobody)
    named = adsbridge("check", "--offline", ADSBRIDGE_CONFIG=str(path))
    assert named.stdout.startswith(f"{path}: 1 source, 0 routes, 2 sinks")
    default = adsbridge("check", "--offline")
    assert (default.returncode, default.stdout.partition(":")[0]) == (0, "safe defaults")


def test_a_missing_configuration_says_how_to_get_one(tmp_path: Path) -> None:
    """A file that is not there is named, with the command that writes one; every command says the same, status 2."""
    missing = tmp_path / "missing.yaml"
    expected = f"{missing}: No such file or directory; `adsbridge init` writes one to start from"
    for command in (["check"], ["run"], ["replay", DATA / "falco/main/file_output.jsonl"], ["queue", "status"]):
        ended = quick(*command, "-c", missing)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert expected in ended.stderr


def test_what_init_writes_passes_the_check(tmp_path: Path) -> None:
    """The file is written, explains itself, and is right as it stands; the next commands are told."""
    path = tmp_path / "adsbridge.yaml"
    ended = quick("init", path)
    assert ended.returncode == 0
    assert f"adsbridge check -c {path}" in ended.stdout
    assert quick("check", "--offline", "-c", path).returncode == 0
    lines = path.read_text().splitlines()
    assert sum("#" in line for line in lines) > 15


def test_init_writes_beside_the_caller_without_a_name(tmp_path: Path) -> None:
    """Without an argument it is adsbridge.yaml in the current folder."""
    assert adsbridge("init", cwd=tmp_path).returncode == 0
    assert (tmp_path / "adsbridge.yaml").exists()


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    """A file that is there stays as it is, with status 1, unless --force is given."""
    path = tmp_path / "adsbridge.yaml"
    path.write_text("mine")
    ended = quick("init", path)
    assert (ended.returncode, path.read_text()) == (1, "mine")
    assert f"{path} is there already; --force replaces it" in ended.stderr
    assert quick("init", path, "--force").returncode == 0
    assert path.read_text() != "mine"


def test_init_says_where_it_cannot_write(tmp_path: Path) -> None:
    """A folder that is not there is named, with status 1."""
    ended = quick("init", tmp_path / "no" / "c.yaml")
    assert ended.returncode == 1
    assert f"cannot write {tmp_path}/no/c.yaml: No such file or directory" in ended.stderr


def test_version_and_help() -> None:
    """--version prints name and version; without a command, all commands are listed with what they do."""
    ended = quick("--version")
    assert ended.returncode == 0
    assert ended.stdout.split() == ["adsbridge", "0.1.0"]
    listed = quick("--help").stdout
    for command in ("run", "demo", "check", "init", "explain", "replay", "strategies", "components", "queue", "packs"):
        assert f"\n  {command} " in listed


def test_every_command_documents_its_exit_status() -> None:
    """The help of each command that may fail says what its exit status means."""
    for command in ("run", "demo", "check", "explain", "replay", "strategies", "components"):
        assert "Exit status" in " ".join(quick(command, "--help").stdout.split())


@pytest.mark.parametrize("arguments", [["nonsense"], ["check", "--nonsense"], ["explain"], ["queue", "drop", "x"]])
def test_a_wrong_call_is_status_2(arguments: list[str]) -> None:
    """An unknown command, option or argument is told with status 2, and never as a traceback."""
    ended = quick(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Error" in ended.stderr


def test_errors_are_text_with_status_2(tmp_path: Path) -> None:
    """What keeps the bridge from starting (an address in use, a damaged spool) is one line, and status 2."""
    path = write(tmp_path, "http://127.0.0.1:1/")
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool/spool.db").write_bytes(os.urandom(8192))
    ended = adsbridge("queue", "status", "-c", path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"adsbridge: {tmp_path}/spool/spool.db: ")
    (tmp_path / "spool/spool.db").unlink()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path.write_text(path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}") + "admin: null\n")
        ended = adsbridge("run", "-c", path)
    assert ended.returncode == 2
    assert f"adsbridge: cannot listen on 127.0.0.1:{port}: " in ended.stderr
