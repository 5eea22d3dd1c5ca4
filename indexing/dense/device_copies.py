"""Which device an index is searched on, and what it keeps there.

An index without room on its device is searched on the CPU until it is opened again, after one warning; with
``TERCET_STRICT_DEVICE=1`` that is an error instead. This module imports torch where a device is used, and not before.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from retrieval.compute import choose_search_device
from retrieval.errors import ConfigError

T = TypeVar("T")
Kept = TypeVar("Kept")

_LOG = logging.getLogger(__name__)


def segment_device(device: str, segment: int, count: int) -> str:
    """The GPU of a segment: ``cuda`` spreads segments over all there are.

    Args:
        device: a device name; any but ``cuda`` is meant as it is.
        segment: the number of the segment.
        count: GPUs there are.
    """
    return f"cuda:{segment % count}" if device == "cuda" and count > 1 else device


def device_of_index(device: str, folder: Path) -> str:
    """Where the index of a folder is searched: the device that is asked for, spread over GPUs by segment.

    Args:
        device: ``auto`` (a GPU where TERCET_DEVICE names one), ``cpu``, ``cuda``, ``cuda:N``.
        folder: segments/NUMBER/indexes/NAME; elsewhere there is one segment.

    Raises:
        ConfigError: the device does not exist here.
    """
    chosen = choose_search_device(device)
    if chosen != "cuda":
        return chosen
    import torch

    number = folder.parent.parent.name
    return segment_device(chosen, int(number) if number.isdigit() else 0, torch.cuda.device_count())


def check_device_name(kind: str, device: object) -> None:
    """Refuse what cannot be a device for searching on any machine.

    Raises:
        ConfigError: it is none of auto, cpu, cuda and cuda:N.
    """
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ConfigError(f"{kind} parameter device is {device!r}; it must be auto, cpu, cuda or cuda:N")


def strict_device() -> bool:
    """Whether a device without room is an error, by TERCET_STRICT_DEVICE (0 or 1).

    Raises:
        ConfigError: it is anything else.
    """
    given = os.environ.get("TERCET_STRICT_DEVICE", "").strip()
    if given not in ("", "0", "1"):
        raise ConfigError(
            f"TERCET_STRICT_DEVICE is {given!r}; it must be 1 (fail where a device has no room) or 0 (use the CPU)"
        )
    return given == "1"


class DeviceCopies(Generic[Kept]):
    """What an index keeps on the devices that have searched it; views of one index share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, Kept] = {}
        self._exhausted: set[str] = set()
        self._warned: set[str] = set()

    def on(self, device: str, bring: Callable[[], Kept]) -> Kept:
        """What is kept on a device, brought there by the first caller."""
        with self._lock:
            if device not in self._made:
                self._made[device] = bring()
            return self._made[device]

    def has(self, device: str) -> bool:
        """Whether it is there already."""
        return device in self._made

    def attempt(self, device: str, work: Callable[[], T]) -> T | None:
        """Do something on a device; None where it has no room for it, now or before.

        Raises:
            ConfigError: it has no room, and TERCET_STRICT_DEVICE is 1.
        """
        import torch

        if device in self._exhausted:
            return None
        try:
            return work()
        except torch.cuda.OutOfMemoryError as error:
            with self._lock:
                self._made.pop(device, None)
            if strict_device():
                raise ConfigError(
                    f"{device} has no memory left ({error}); free some, work on the CPU "
                    "(TERCET_DEVICE=cpu), or let it go there by itself (TERCET_STRICT_DEVICE=0)"
                ) from error
            self._exhausted.add(device)
            self.warn(f"{device} has no memory left: the CPU does its work from now on")
            return None

    def warn(self, message: str) -> None:
        """Log a warning, the first time."""
        with self._lock:
            first = message not in self._warned
            self._warned.add(message)
        if first:
            _LOG.warning(message)
