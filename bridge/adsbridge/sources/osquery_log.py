"""osquery's findings from the files that its filesystem logger writes."""

from adsbridge.parse import osquery
from adsbridge.sources.tail import Tail


class OsqueryLog(Tail):
    """Reads osqueryd.results.log, osqueryd.snapshots.log or osqueryd.WARNING, over rotations and restarts.

    One source per file. Results arrive as events, batches or snapshots, whichever osqueryd is set to write.
    """

    type = "osquery_log"
    sensors = frozenset({"osquery"})
    example = "path: /var/log/osquery/osqueryd.results.log"
    parser = staticmethod(osquery.parse)
    starts_text = staticmethod(osquery.starts_text)
