"""``python -m training``: the same code as ``tercet train``, which torchrun can start."""

from __future__ import annotations

import sys

from indexing.command_line import run
from training.cli import train_command

sys.exit(run(train_command, name="python -m training"))
