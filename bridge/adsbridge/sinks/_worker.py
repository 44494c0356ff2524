"""A thread for a sink whose writing blocks."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

_Work = tuple[Callable[[], None], "asyncio.Future[None]"]


class Worker:
    """Runs a sink's blocking calls, one after the other, in a daemon thread of its own.

    A disk or pipe that hangs holds up this sink only, and not the end of the process. A call that was given up
    while it ran goes on; one that had not begun never does.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, call: Callable[[], None]) -> None:
        """Run a call and return when it is done; raises what it raises."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"sink {self._name}", daemon=True)
            self._thread.start()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._work.put((call, future))
        await future

    def stop(self) -> None:
        """End the thread when what it was asked for is done."""
        self._work.put(None)
        self._thread = None

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            call, future = work
            if future.cancelled():
                continue
            error: Exception | None = None
            try:
                call()
            except Exception as failure:
                error = failure
            try:
                future.get_loop().call_soon_threadsafe(_settle, future, error)
            except RuntimeError:  # the loop was closed without waiting for us
                return


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
