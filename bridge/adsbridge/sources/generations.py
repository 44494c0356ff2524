"""A log file and its rotated generations, found by device, inode and content.

Rotation by rename leaves the old file under another name with its inode; by copytruncate it leaves a copy with
another inode. An inode alone proves little, since file systems give the number of a removed file to the next
one, so a position also proves the bytes before it: so many that a whole line, with its time, is among them.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

import msgspec

TAIL = 4096  # bytes before a position that it proves
_ROTATED = re.compile(r"[.-][0-9][0-9T:.-]*\Z")


class Position(msgspec.Struct, frozen=True):
    """A place in a log: which file, how far, and a digest of the bytes just before it."""

    device: int
    inode: int
    offset: int
    proof: bytes = b""
    time: float = 0.0
    """Modification time of the file when the position was taken, seconds since the epoch."""


def proof(before: bytes) -> bytes:
    """The digest of what stands before an offset."""
    return hashlib.blake2b(before[-TAIL:], digest_size=16).digest()


def tail(file: BinaryIO, offset: int) -> bytes:
    """The bytes just before an offset, as many as prove it."""
    start = max(0, offset - TAIL)
    return os.pread(file.fileno(), offset - start, start)


def holds(file: BinaryIO, position: Position) -> bool:
    """Whether a file has, before the position's offset, the very bytes that stood there."""
    if os.fstat(file.fileno()).st_size < position.offset:
        return False
    return proof(tail(file, position.offset)) == position.proof


def rotated(path: Path) -> list[Path]:
    """The uncompressed rotated generations of a file that hold something, oldest first."""
    found = []
    for sibling in path.parent.glob(f"{_escaped(path.name)}*"):
        suffix = sibling.name[len(path.name) :]
        if _ROTATED.match(suffix):
            try:
                status = sibling.stat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size:
                found.append((_place(suffix[1:]), status.st_mtime_ns, sibling))
    return [sibling for *_, sibling in sorted(found)]


def _place(suffix: str) -> int:
    """The order that a suffix tells: 2 before 1, but 20261121 before 20261122; of others, the time tells it."""
    if not suffix.isdecimal():
        return 0
    return -int(suffix) if len(suffix) < 5 else int(suffix)


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def resume(path: Path, position: Position) -> BinaryIO | None:
    """The file that a position points into, open; ``None`` if it is gone.

    The same inode with the same content first; else a copy with the same content (copytruncate).
    """
    candidates = [path, *reversed(rotated(path))]
    for same_inode in (True, False):
        for candidate in candidates:
            file = open_file(candidate)
            if file is None:
                continue
            status = os.fstat(file.fileno())
            is_same = (status.st_dev, status.st_ino) == (position.device, position.inode)
            proves = position.offset > 0 or same_inode
            if is_same == same_inode and proves and holds(file, position):
                return file
            file.close()
    return None


def after(path: Path, file: BinaryIO) -> Path:
    """The generation that follows an open one: the next newer rotated file, or the live one.

    One that was removed while it was open has no name any more: then the oldest that was written after it.
    """
    status = os.fstat(file.fileno())
    generations = rotated(path)
    for index, generation in enumerate(generations):
        try:
            found = generation.stat()
        except FileNotFoundError:
            continue
        if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
            return generations[index + 1] if index + 1 < len(generations) else path
    return newer(path, status.st_mtime)


def newer(path: Path, moment: float) -> Path:
    """The oldest generation that was written after a moment, or the live one."""
    for generation in rotated(path):
        try:
            if generation.stat().st_mtime > moment:
                return generation
        except FileNotFoundError:
            continue
    return path


def open_file(path: Path) -> BinaryIO | None:
    """The file, or ``None`` if there is none.

    Raises:
        OSError: it is there but cannot be opened.
    """
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
