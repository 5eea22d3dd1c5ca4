"""Only our own progress on stderr."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """No bars and no advice of the libraries underneath."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from datasets.utils import logging as datasets_logging  # type: ignore[import-untyped]
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
        datasets_logging.enable_progress_bar()
