"""Decides when, carries plans out, keeps the record: control loop, ledger, API, CLI."""
