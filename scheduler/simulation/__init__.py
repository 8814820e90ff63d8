"""The control plane against simulated sites, in one thread and on a clock that only steps."""
