"""The bridge's own log: one structured line each on standard error, for people in a terminal, JSON otherwise."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor


def configure(level: str = "info", form: Literal["auto", "text", "json"] = "auto") -> None:
    """Set up the log of this process."""
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    renderer: list[Processor]
    if as_text:
        # Not structlog's own choice of traceback: that shows local variables, and secrets are among them.
        plain = structlog.dev.plain_traceback
        renderer = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    else:
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # What libraries say (asyncio's slow callbacks, aiohttp's broken requests) is theirs to count, not an alert.
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr)
