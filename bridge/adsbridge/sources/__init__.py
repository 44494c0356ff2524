"""Where events come from: one file each, one line here each."""

from adsbridge.sources.falco_file import FalcoFile
from adsbridge.sources.falco_http import FalcoHttp
from adsbridge.sources.osquery_log import OsqueryLog

REGISTRY = (FalcoFile, FalcoHttp, OsqueryLog)
