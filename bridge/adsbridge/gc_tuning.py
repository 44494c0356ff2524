"""Fewer runs of Python's cycle collector: alerts hold no cycles, so looking for them is wasted time."""

from __future__ import annotations

import gc


def apply() -> None:
    """Leave what the program itself needs out of every collection, and collect more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
