"""`python -m indexing VERB ...`: the same code as `tercet VERB ...`."""

import sys

import click

from indexing.cli import COMMANDS
from indexing.command_line import run

if __name__ == "__main__":
    group = click.Group("indexing", help="Make and tend collections.", commands=list(COMMANDS))
    sys.exit(run(group, name="python -m indexing"))
