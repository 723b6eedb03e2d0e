"""Alerts a systemd unit that has failed: OnFailure= of the shipped units runs it.

As a command: ``python -m ibkr_depth_pipeline.monitoring.unit_failure UNIT``. Settings are those of the environment.
"""

from __future__ import annotations

import socket
import sys

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.monitoring.delivery import deliver, redis_record
from ibkr_depth_pipeline.monitoring.state import AlertOutbox
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind
from ibkr_depth_pipeline.settings import load_settings


def alert_failed_unit(unit: str) -> bool:
    """Log the alert and send it to every URL of ALERT_URLS, once. Returns False if one of them did not take it."""
    settings = load_settings()
    configure_logging(settings.ibkr_log_level)
    title = f"IBKR depth: {unit} has failed on {socket.gethostname()}"
    text = f"systemd has given up restarting it. Look with: journalctl -u {unit}; then: systemctl restart {unit}"
    alert = Alert(unix_ms(), AlertKind.TROUBLE, "unit_failed", title, text)
    record = redis_record(settings)
    return not deliver(AlertOutbox(), [alert], settings.alert_targets, alert.ts, record=record).pending


if __name__ == "__main__":
    sys.exit(0 if alert_failed_unit(sys.argv[1]) else 1)
