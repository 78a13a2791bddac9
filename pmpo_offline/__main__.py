"""`python -m pmpo_offline`: the command line of a checkout that is not installed."""

from pmpo_offline.cli.main import main

main()
