"""The decided truth: an append-only, signed record of plans, policies, changes and executions.

`store` keeps it, `merkle` hashes it, `checkpoint` signs it, `audit` asks it where data ran, and
`verifier` (which imports nothing from here) lets anybody check all of that elsewhere.
"""

from scheduler.ledger.checkpoint import Checkpoint
from scheduler.ledger.store import Entry, EntryRef, Ledger, LedgerReader

__all__ = ["Checkpoint", "Entry", "EntryRef", "Ledger", "LedgerReader"]
