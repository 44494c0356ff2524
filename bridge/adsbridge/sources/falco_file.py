"""Falco's alerts from the file that its file output writes."""

from adsbridge.parse import falco
from adsbridge.sources.tail import Tail


class FalcoFile(Tail):
    """Reads Falco's file output, over rotations and restarts, without losing an alert.

    In falco.yaml: ``json_output: true`` and ``file_output: {enabled: true, keep_alive: true, filename: …}``.
    """

    type = "falco_file"
    sensors = frozenset({"falco"})
    example = "path: /var/log/falco/events.jsonl"
    parser = staticmethod(falco.parse)
    starts_text = staticmethod(falco.starts_text)
