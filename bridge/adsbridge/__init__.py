"""adsbridge: Falco and osquery findings, tagged with their strategy and delivered durably."""

__version__ = "0.1.0"
