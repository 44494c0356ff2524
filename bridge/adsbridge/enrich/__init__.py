"""What adds context to alerts: one file each, one line here each."""

from adsbridge.enrich.base import Enricher

REGISTRY: tuple[type[Enricher], ...] = ()
