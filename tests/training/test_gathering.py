"""A batch on two devices has the loss and the gradients of the same batch on one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from training.auxiliaries.table import AUXILIARIES
from training.losses.table import LOSSES
from training.trainer.gathering import gather, gather_documents, mean_over_devices, queries_before

WORKER = Path(__file__).with_name("gathering_worker.py")
CASES = [*LOSSES, *AUXILIARIES, "ranking-symmetric", "ranking-late", "flops-threshold", "matryoshka"]


@pytest.fixture(scope="module")
def alone() -> Any:
    """Case -> loss and gradients of the whole batch, computed by this process."""
    spec = importlib.util.spec_from_file_location("gathering_worker", WORKER)
    assert spec is not None and spec.loader is not None
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    return worker.gradients(0, 1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The same of each of two processes that hold half of the batch."""
    folder = tmp_path_factory.mktemp("gathering")
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(WORKER.parents[2]),
        "HF_HUB_OFFLINE": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error::FutureWarning", WORKER, str(rank), "2", folder],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"{rank}-of-2.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_devices_train_like_one(case: str, alone: Any, shared: list[Any]) -> None:
    assert alone[case]["encoder.weight"].abs().max() > 1e-6
    for device in shared:
        assert device[case].keys() == alone[case].keys()
        for name, expected in alone[case].items():
            torch.testing.assert_close(device[case][name], expected)


def test_one_device_keeps_what_it_has() -> None:
    tensor = torch.ones(2, 3)
    assert gather(tensor) is tensor and mean_over_devices(tensor) is tensor
    assert gather_documents((tensor, tensor))[1] is tensor
    assert queries_before(7) == 0
