"""The destinations: one file each, one line here each."""

from adsbridge.sinks.console import Console
from adsbridge.sinks.file import File
from adsbridge.sinks.webhook import Webhook

REGISTRY = (Console, File, Webhook)
