"""``python -m eval DATASET ...``: the same code as ``tercet eval``."""

import sys

from eval.cli import command
from indexing.command_line import run

if __name__ == "__main__":
    sys.exit(run(command, name="python -m eval"))
