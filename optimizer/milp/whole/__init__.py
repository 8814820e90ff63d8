"""The search for problems that do not fall apart: one priced relaxation, one tree over it."""
