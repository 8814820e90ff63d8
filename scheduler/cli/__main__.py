"""`python -m scheduler.cli`: the same as the installed command."""

from scheduler.cli import main

main()
