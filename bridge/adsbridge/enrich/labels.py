"""The configuration's labels on every alert, so that fleets can route by owner."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from adsbridge.components import Settings
from adsbridge.enrich.base import Enricher
from adsbridge.events import Alert


class LabelSettings(Settings):
    """Settings of the labels, the configuration's ``labels``."""

    labels: dict[str, str] = Field({}, description="Labels for every alert, e.g. team, environment, criticality")


class Labels(Enricher):
    """Puts the configured labels on every alert; always on, before all other enrichers."""

    type = "labels"
    Config = LabelSettings
    settings: LabelSettings

    async def enrich(self, alerts: Sequence[Alert]) -> None:
        """Add the labels; see ``Enricher.enrich``."""
        for alert in alerts:
            alert.labels = dict(self.settings.labels)
