"""Applies plans at one site: uplink, runtimes, gateway, telemetry, record spool."""
