"""Putting dead letters back on their way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from adsbridge import timestamps
from adsbridge.config import Config
from adsbridge.errors import ParseError
from adsbridge.events import decode
from adsbridge.metrics import Metrics
from adsbridge.parse import KEPT_BYTES, detect
from adsbridge.processing import Processing, rows
from adsbridge.store import DeadLetter, Row, Store


def to_json(record: dict[str, Any]) -> str:
    """One line of JSON in ASCII: what a sender wrote must not steer the terminal that shows it."""
    return json.dumps(record)


def retry(store: Store, chosen: Sequence[DeadLetter], config: Config) -> tuple[int, list[tuple[DeadLetter, str]]]:
    """Put dead letters back, each in a transaction of its own.

    Returns:
        How many went back, and those that stayed with the reason.

    Raises:
        SpoolError: the spool cannot be written.
    """
    back, stayed = 0, []
    processing = config.processing()
    for letter in chosen:
        try:
            again = _rows(letter, config, processing)
        except (ParseError, msgspec.MsgspecError) as error:
            stayed.append((letter, str(error)))
            continue
        with store.transaction():
            if not store.forget_dead_letters([letter.id]):
                continue  # another put it back meanwhile
            for row in again:
                store.append(row)
        back += 1
    return back, stayed


def _rows(letter: DeadLetter, config: Config, processing: Processing) -> list[Row]:
    if letter.stage == "delivery":
        if letter.component not in config.sinks:
            raise ParseError("no_sink", f"the configuration has no sink '{letter.component}' any more")
        return [Row((letter.component,), letter.payload + b"\n", 1, timestamps.to_ns(decode(letter.payload).time))]
    if len(letter.payload) >= KEPT_BYTES:
        raise ParseError("cut", f"only its first {KEPT_BYTES} bytes were kept")
    events = detect.parse(letter.payload, b"dead-letter:%d" % letter.id)
    found = rows(asyncio.run(processing.process(events, Metrics())))
    if not found:
        raise ParseError("nowhere", "it can be understood now, but no route takes it; `adsbridge explain` tells why")
    return found
