"""Readiness and watchdog messages to systemd: https://www.freedesktop.org/software/systemd/man/sd_notify.html."""

from __future__ import annotations

import asyncio
import os
import socket


def notify(state: str) -> None:
    """Tell systemd a state such as ``READY=1``; does nothing when systemd did not start us."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.connect(path)
            connection.sendall(state.encode())
    except OSError:
        return  # systemd will see to it that we are not ready


async def watchdog() -> None:
    """Tell systemd at half its watchdog interval that the event loop runs; returns at once without one."""
    interval = os.environ.get("WATCHDOG_USEC", "")
    if not interval.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(int(interval) / 2_000_000)
