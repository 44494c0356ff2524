"""What every source promises, whichever it is; a new one is tested by being in the registry."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from pydantic import ValidationError

from adsbridge.components import registry
from adsbridge.errors import StartError
from adsbridge.parse import Parsed
from adsbridge.sources.base import Source

SOURCES = cast("dict[str, type[Source]]", registry("sources"))
each = pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))


class Silent:
    """An intake that takes everything and expects no records."""

    def __init__(self) -> None:
        self.taken: list[Parsed] = []
        self.saved: dict[str, str] = {}

    async def submit(self, source: str, parsed: Parsed, checkpoint: str | None = None) -> asyncio.Future[None]:
        self.taken.append(parsed)
        if checkpoint is not None:
            self.saved[source] = checkpoint
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def refused(self, source: str, status: int) -> None:
        raise AssertionError("nothing was sent")

    async def checkpoint(self, source: str) -> str | None:
        return self.saved.get(source)


def example(source: type[Source], folder: Path, **changes: Any) -> Source:
    """A source made from its own example, with the places in it moved to where a test may be."""
    settings = yaml.safe_load(source.example)
    if "path" in settings:
        settings["path"] = str(folder / Path(settings["path"]).name)
    if "listen" in settings:
        settings["listen"] = "127.0.0.1:0"
    return source("mine", source.Config.model_validate({**settings, **changes}))


@each
def test_its_example_is_a_right_configuration(source: type[Source]) -> None:
    """What the documentation shows can be pasted: the example validates as it stands."""
    settings = yaml.safe_load(source.example)
    assert isinstance(settings, dict)
    assert isinstance(source.Config.model_validate(settings), source.Config)


@each
def test_it_describes_itself(source: type[Source]) -> None:
    """Listing and documentation are made from its type, summary and settings, so that none may be missing."""
    assert source.type == source.type.lower()
    assert source.type.isidentifier()
    assert source.summary().endswith(".")
    assert len(source.summary()) <= 120
    assert all(field.description for field in source.Config.model_fields.values())


@each
def test_it_names_the_sensors_that_it_brings(source: type[Source]) -> None:
    """Routes are checked against the sensors that can occur."""
    assert source.sensors
    assert source.sensors <= {"falco", "osquery"}


@each
def test_an_unknown_setting_is_a_mistake(source: type[Source]) -> None:
    """A misspelt key is told, not ignored."""
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        source.Config.model_validate({**yaml.safe_load(source.example), "no_such_setting": 1})


@each
def test_it_starts_and_stops_when_nothing_happens(source: type[Source], tmp_path: Path) -> None:
    """Started, it says where it takes records from; stopped at once, it hands nothing in and leaves nothing running."""

    async def run() -> None:
        intake = Silent()
        one = example(source, tmp_path)
        await one.start(intake)
        assert one.address
        async with asyncio.timeout(10):
            await one.stop()
        assert sum(len(parsed.events) + len(parsed.rejected) for parsed in intake.taken) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


@each
def test_it_can_be_started_again_after_it_was_stopped(source: type[Source], tmp_path: Path) -> None:
    """A reload stops a source and starts another in its place: what the first one held is free again."""

    async def run() -> None:
        intake = Silent()
        first = example(source, tmp_path)
        await first.start(intake)
        place = first.address.rpartition("//")[2].rstrip("/")
        await first.stop()
        second = example(source, tmp_path, **({"listen": place} if "listen" in source.Config.model_fields else {}))
        await second.start(intake)
        assert second.address == first.address
        await second.stop()

    asyncio.run(run())


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@each
def test_what_cannot_start_says_so(source: type[Source], tmp_path: Path, taken: int) -> None:
    """An address in use or a folder in place of a file is a StartError that names it, and leaves nothing running."""
    (tmp_path / "folder").mkdir()
    listens = "listen" in source.Config.model_fields
    wrong = {"listen": f"127.0.0.1:{taken}"} if listens else {"path": tmp_path / "folder"}

    async def run() -> None:
        one = example(source, tmp_path, **wrong)
        with pytest.raises(StartError, match=str(taken) if listens else "folder"):
            await one.start(Silent())
        await one.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


@pytest.mark.parametrize("source", [one for one in SOURCES.values() if "path" in one.Config.model_fields])
def test_a_pipe_is_no_file_to_read(source: type[Source], tmp_path: Path) -> None:
    """Opening a named pipe would wait for its writer without end, so it is refused with advice."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StartError, match="'-'"):
        asyncio.run(example(source, tmp_path, path=tmp_path / "pipe").start(Silent()))
