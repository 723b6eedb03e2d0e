"""Sensors, heartbeat checks and the watchdog, and the runs that they track."""
