"""Where strategies/, falco_rules/ and packs/ are: in the installed package, or in the checkout."""

from __future__ import annotations

from pathlib import Path

from adsbridge.errors import ContentError

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The folder of that name (``strategies``, ``falco_rules`` or ``packs``).

    Raises:
        ContentError: neither the package nor a checkout has it.
    """
    for root in (_PACKAGE / "content", _PACKAGE.parent.parent):
        if (root / name).is_dir():
            return root / name
    raise ContentError(f"{_PACKAGE / 'content' / name}: not found; reinstall adsbridge, its data is missing")
