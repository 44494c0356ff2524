"""Every error that adsbridge raises on purpose.

AdsbridgeError
├── ConfigError        the configuration is wrong; carries every mistake found
├── ContentError       a strategy, rule or pack file is wrong
├── ParseError         a sensor's record cannot be understood
├── SpoolError         the durable queue cannot be opened, read or written
│   └── SpoolFull      the queue holds as much as it may
├── StartError         a component cannot start (address in use, file not readable)
└── SendError          a sink could not deliver
    ├── Permanent      sending the same thing again cannot help
    └── Retryable      sending it again later may help
"""

from __future__ import annotations

from collections.abc import Sequence


class AdsbridgeError(Exception):
    """Base of all errors of this package; its text is meant for people."""


class ConfigError(AdsbridgeError):
    """The configuration is wrong.

    Attributes:
        mistakes: one ``file:line:column: what is wrong`` each, in file order.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = list(mistakes)


class ContentError(AdsbridgeError):
    """A strategy, rule or pack file is wrong; the text starts with its ``file:line``."""


class ParseError(AdsbridgeError):
    """A record cannot be understood.

    Attributes:
        reason: the kind of mistake, one of a few words (a metric label).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class SpoolError(AdsbridgeError):
    """The durable queue cannot be opened, read or written."""


class SpoolFull(SpoolError):  # noqa: N818 - a state, not a mistake
    """The queue holds as much as it may, and its policy is to block."""


class StartError(AdsbridgeError):
    """A component cannot start."""


class SendError(AdsbridgeError):
    """A sink could not deliver.

    Attributes:
        items: indexes in the batch that failed; ``None`` when all did.
    """

    def __init__(self, detail: str, *, items: Sequence[int] | None = None) -> None:
        super().__init__(detail)
        self.items = None if items is None else list(items)


class Permanent(SendError):  # noqa: N818 - the protocol's word
    """The destination refuses this content; the same content will be refused again."""


class Retryable(SendError):  # noqa: N818 - the protocol's word
    """The destination cannot take it now.

    Attributes:
        retry_after: seconds that the destination asked to wait, or ``None``.
    """

    def __init__(self, detail: str, *, retry_after: float | None = None, items: Sequence[int] | None = None) -> None:
        super().__init__(detail, items=items)
        self.retry_after = retry_after
