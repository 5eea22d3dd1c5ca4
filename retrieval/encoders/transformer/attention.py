"""Self-attention over a batch laid out as runs of texts of equal length."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 1 << 20  # attention weights computed at a time: fewer calls, and still within a core's caches
_SMALL = 30_000  # below so many weights one fused call costs less than four
_EVEN = 16  # lengths are brought to multiples of this
_LONG = 4096  # above this length one head's weights no longer fit the caches, and need not be held at all


@dataclass(frozen=True, slots=True)
class TokenRun:
    """Texts of one length, stored one after another in the (T, D) token matrix of a batch.

    Attributes:
        start: row of the first token.
        n: how many texts.
        length: tokens of each, padding included.
        lengths: (n,) true lengths where texts are padded; None where none is.
    """

    start: int
    n: int
    length: int
    lengths: Tensor | None = None

    @property
    def stop(self) -> int:
        """The row behind the last token."""
        return self.start + self.n * self.length

    def of(self, x: Tensor) -> Tensor:
        """The run's part of (T, D) as (n, length, D)."""
        return x[self.start : self.stop].view(self.n, self.length, -1)

    def mask(self) -> Tensor | None:
        """(n, length) True for real tokens, None where all are."""
        if self.lengths is None:
            return None
        return torch.arange(self.length, device=self.lengths.device) < self.lengths[:, None]


def attend(qkv: Tensor, runs: list[TokenRun], heads: int, composed: bool) -> Tensor:
    """Softmax attention of every text to itself.

    Args:
        qkv: (T, 3 D) queries, keys and values; queries are already scaled by ``(D / heads) ** -0.5``.
        runs: which rows belong together, from the first on, in order; what is behind them becomes 0.
        heads: number of heads; divides D.
        composed: multiply with oneDNN with a softmax of our own between, which is faster than torch's fused
            kernel for bfloat16 on a CPU; only without padding.

    Returns:
        (T, D) of the dtype of qkv.
    """
    width = qkv.shape[1] // 3
    if len(runs) == 1 and runs[0].stop == len(qkv):
        return _attend_run(qkv, runs[0], heads, composed)
    out = torch.empty(len(qkv), width, dtype=qkv.dtype, device=qkv.device)
    for run in runs:
        out[run.start : run.stop] = _attend_run(qkv, run, heads, composed)
    out[runs[-1].stop :] = 0
    return out


def _attend_run(qkv: Tensor, run: TokenRun, heads: int, composed: bool) -> Tensor:
    n, length, width = run.n, run.length, qkv.shape[1] // 3
    parts = qkv[run.start : run.stop].view(n, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    compose = composed and run.lengths is None and length <= _LONG
    if compose and n * heads * length * length > _SMALL:
        values = _composed(parts)
    else:
        mask = run.mask()
        mask = None if mask is None else mask[:, None, None, :]
        values = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=mask, scale=1.0)
    return values.transpose(1, 2).reshape(n * length, width)


class _Scratch(threading.local):
    """One thread's buffer; allocating megabytes anew for each layer costs more than the arithmetic."""

    def __init__(self) -> None:
        self.buffer = torch.empty(0, dtype=torch.bfloat16)

    def take(self, size: int) -> Tensor:
        if len(self.buffer) < size:
            self.buffer = torch.empty(size, dtype=torch.bfloat16)
        return self.buffer[:size]


_scratch = _Scratch()


def _composed(parts: Tensor) -> Tensor:
    """(3, n, heads, L, d) bfloat16 -> (n, heads, L, d): two batched products with the softmax between.

    oneDNN makes and keeps a program for every shape, so lengths are brought to multiples of 16 with zeros behind, and
    texts are taken by powers of two.
    """
    from retrieval.encoders.transformer.softmax import softmax_bfloat16

    _, n, heads, length, width = parts.shape
    even = -(-length // _EVEN) * _EVEN
    padded = F.pad(parts, (0, 0, 0, even - length)).reshape(3, n * heads, even, width)
    queries, keys, values = padded[0], padded[1].transpose(1, 2), padded[2]
    out = torch.empty_like(values)
    for part in _blocks(n, heads, max(1, _BLOCK // (even * even))):
        size = part.stop - part.start
        weights = _scratch.take(size * even * even).view(size, even, even)
        torch.bmm(queries[part], keys[part], out=weights)
        softmax_bfloat16(weights, length)
        torch.bmm(weights, values[part], out=out[part])
    return out.view(n, heads, even, width)[:, :, :length]


def _blocks(n: int, heads: int, most: int) -> Iterator[slice]:
    """Heads of n texts, some at a time, in few sizes: all of 1, 2, 4 ... texts, or at most so many of one."""
    done = 0
    while done < n:
        texts = 1 << max(0, min(n - done, most // heads).bit_length() - 1)
        start, stop = done * heads, (done + texts) * heads
        for at in range(start, stop, min(most, stop - start)):
            yield slice(at, min(at + most, stop))
        done += texts
