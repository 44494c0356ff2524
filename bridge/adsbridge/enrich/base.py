"""What an enricher is: it adds context to alerts, within a time budget."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from adsbridge.components import Component, Settings
from adsbridge.events import Alert


class Enricher(Component):
    """Adds context to alerts in place.

    The processing gives all enrichers together a time budget per batch; one that misses it is noted on the
    alerts (``enrichment.<type>: timeout``) and never holds them back.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    async def enrich(self, alerts: Sequence[Alert]) -> None:
        """Add to the alerts what is known; note on an alert what could not be found out."""
