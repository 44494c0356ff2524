"""The configuration that ``adsbridge init`` writes."""

_TEXT = """\
# adsbridge: Falco and osquery findings as alerts, delivered durably.
# Check it with `adsbridge check -c THIS_FILE`; all keys are in docs/configuration.md.
# ${NAME} is filled in from the environment, ${file:/path} from a file; $$ is a dollar sign.

# Labels on every alert; routes can ask for them.
labels:
  environment: production

# Where events come from.
sources:
  falco:                          # falco.yaml: json_output: true, file_output.enabled: true
    type: falco_file              # the only way from Falco that survives a restart of the bridge
    path: /var/log/falco/events.jsonl
  # falco_http:                   # falco.yaml: http_output.url: http://127.0.0.1:2801/
  #   type: falco_http
  #   listen: 127.0.0.1:2801
  osquery:
    type: osquery_log
    path: /var/log/osquery/osqueryd.results.log
  osquery_snapshots:
    type: osquery_log
    path: /var/log/osquery/osqueryd.snapshots.log

# Which alert goes where. The first route that matches is the last one tried, unless it says continue: true.
routes:
  - name: urgent
    match:
      severity: high              # at least
      strategy: "ADS-*"           # claimed by a strategy
    sinks: [archive]              # add your webhook here: [soc, archive]
  - name: everything else
    sinks: [archive]

# Where alerts go.
sinks:
  archive:
    type: file
    path: /var/log/adsbridge/alerts.jsonl
    max_size: 100MiB
  # soc:
  #   type: webhook
  #   url: https://soc.example.com/alerts
  #   secrets: ["${file:/etc/adsbridge/webhook.secret}"]   # Standard Webhooks key, whsec_…

# What waits to be delivered. Full: sources wait (block), or the oldest is dropped and counted (drop_oldest).
spool:
  max_size: 1GiB
  max_age: 7d
  when_full: block

# Metrics and health: /metrics, /healthz, /readyz.
admin:
  listen: 127.0.0.1:2802
"""


def text() -> str:
    """A commented configuration to start from."""
    return _TEXT
