"""Trains by a recipe; run by torchrun in a test of several processes."""

from __future__ import annotations

import sys
from pathlib import Path

from indexing.progress import Silent
from training.recipe.reading import read_recipe
from training.run.running import train

if __name__ == "__main__":
    train(read_recipe(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Silent())
