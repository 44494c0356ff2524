"""What a sink is: it knows how to send one batch, and nothing else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

from adsbridge.components import Component, Settings
from adsbridge.events import Alert, decode
from adsbridge.parse import event_id

_HEAD = len('{"id":"') + 32


class Batch:
    """Alerts to send together.

    Attributes:
        payloads: the alerts' native JSON, one each, without line ends.
    """

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.payloads = payloads

    def __len__(self) -> int:
        return len(self.payloads)

    @cached_property
    def id(self) -> str:
        """The same for the same alerts, each time: made from their ids, which stand first in their JSON."""
        return event_id(b"".join(payload[:_HEAD] for payload in self.payloads))

    @cached_property
    def alerts(self) -> list[Alert]:
        """The alerts, decoded when first asked for."""
        return [decode(payload) for payload in self.payloads]


class Sink(Component):
    """Sends batches to one destination.

    Delivery (adsbridge.delivery) calls it with one batch at a time and owns batching, retries, the circuit
    breaker and dead letters.

    Attributes:
        most: the most alerts that it takes in one batch; ``None``: as many as the configuration allows.

    Args:
        name: its name in the configuration.
        settings: an instance of its ``Config``.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.most: int | None = None

    async def open(self) -> None:
        """Get ready to send.

        Raises:
            StartError: it cannot work at all, whatever is tried later.
        """

    @abstractmethod
    async def send(self, batch: Batch) -> None:
        """Deliver the batch; returning means that the destination has it.

        An error with ``items`` means that the destination has all others of the batch. Where some are refused
        and some may be taken later, raise ``Retryable`` with both: the refused ones come again.

        Raises:
            Permanent: the destination refuses this content for good.
            Retryable: it may take it later.
        """

    async def probe(self) -> None:
        """Find out whether the destination can be reached, without sending an alert or leaving a trace.

        Called on a sink that is not open.

        Raises:
            SendError: it can't.
        """

    def reopen(self) -> None:
        """Open output files anew, because something else moved them (SIGUSR1)."""

    async def close(self) -> None:
        """Let go of all connections and files."""
