"""Search on a GPU: correct first, then how near the card's own ceilings.

    python benchmarks/gpu_check.py [SECTION ...] [--small] [--json]

Everything is generated. `ceilings` measures the card: a bfloat16 matrix product, and a copy counted as read and
written. `share` is the time that the binding ceiling allows (operations at the measured product, or bytes that must be
read at the measured copy) over the time taken.

Late interaction (gpu_check_late.py). `dense` and `residual` score every document for a batch of 32-token queries, from
token vectors and from residual codes; the scores that are timed are compared with the oracle on a sample of rows. The
baseline is the same by torch.compile over documents sorted by length and padded to the next 32, padding prepared
beforehand. `search` is the index kind maxsim from query vectors to the best 10, on the card and on the CPU, whose hits
must be equal; the baseline there ends in torch's top k.

Encoders (gpu_check_encode.py). `encode` is the default dense and sparse encoder, with the least cosine between a
document's vector and the one of the same encoder in float32 on the CPU.

Dense vectors (gpu_check_dense.py). `flat` is exact search of 1M and 10M x 384: the rows in question, which must hold
the best 10 by float64, from queries in the host's memory on; the kernel alone; and torch's product and top k, which
keep no more than half precision. `index` is the index kind flat from query vectors to hits, on the card and on the CPU,
which must be equal. `lists` trains, fills and searches inverted lists beside FAISS on the CPU over the same centroids,
with recall@10. `faiss` is FAISS on the card: flat, IVF and CAGRA where they are installed.

Training (gpu_check_training.py). `training` takes one step of every family on the CPU and on the card, in float32, from
the same weights and batch and without dropout; the losses before and after it must be equal within a thousandth. Then
pairs a second on the card in bfloat16. It is skipped where there is no card.

`--small` runs the same code in seconds, on a CPU where there is no card (the kernels through plain torch, or with
TRITON_INTERPRET=1 through Triton's interpreter); its times mean nothing. The exit code is 1 if anything is incorrect.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import gpu_check_dense, gpu_check_encode, gpu_check_late, gpu_check_training
from benchmarks.gpu_card import DRY, Card, Peak, Row, ceilings

SECTIONS = {
    "ceilings": ceilings,
    **gpu_check_late.SECTIONS,
    **gpu_check_encode.SECTIONS,
    **gpu_check_dense.SECTIONS,
    **gpu_check_training.SECTIONS,
}


def main() -> int:
    """Run as a script; 1 if anything is incorrect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all")
    parser.add_argument(
        "--small", action="store_true", help="seconds instead of minutes, on a CPU if need be"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    unknown = [name for name in given.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; valid: {', '.join(SECTIONS)}")
    present = torch.cuda.is_available()
    if not present and not given.small:
        parser.error("there is no CUDA GPU here; --small runs the same code on a CPU")
    card = replace(DRY, device="cuda" if present else "cpu") if given.small else Card()
    peak, correct = Peak.measured(card), True
    for name in given.sections or SECTIONS:
        for line in SECTIONS[name](card, peak):
            correct &= bool(line.get("correct", True))
            print(json.dumps(line) if given.json else shown(line), flush=True)
    return 0 if correct else 1


def shown(line: Row) -> str:
    """A line for people."""
    fixed = ("bench", "section", "engine", "setting")
    figures = "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in line.items()
        if name not in fixed
    )
    return f"{line['section']:<9} {line['engine']:<14} {line['setting']:<44} {figures}"


if __name__ == "__main__":
    sys.exit(main())
