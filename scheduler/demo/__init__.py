"""The demo: three real sites, a plan, traffic, a lost site, its return, and the audit."""
