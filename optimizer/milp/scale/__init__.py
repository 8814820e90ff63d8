"""The search for large fleets: prices of shared limits, a bound by services, a plan by services."""
