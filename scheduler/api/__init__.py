"""The operator API: what the CLI and programs may ask of a running control plane.

Routes are thin: they turn a call into an event of the control loop or a question to the ledger, and
a refusal into a problem document. Served on loopback only, with a bearer token.
"""
