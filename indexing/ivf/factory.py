"""FAISS factory strings: the default, what is wrong with one, and the empty index that one describes.

A string is read part by part, separated by commas: transforms (OPQ64, PCA128, RR128), a coarse quantiser (IVF1024,
IVF65536_HNSW32), a code (Flat, SQ8, PQ96x4fs, RaBitQ) and a refinement (RFlat, Refine(SQ8)).
"""

from __future__ import annotations

import math
import re
from typing import Any

from retrieval.errors import ConfigError

EXAMPLES = "IVF1024,SQ8 or IVF1024,Flat or OPQ96,IVF1024,PQ96x4fs or IVF4096,RaBitQfs or PQ64,Refine(SQ8)"
_FLAT_BELOW = 2_000
"""Rows up to which comparing all of them takes no longer than choosing among lists."""
_ROWS_A_LIST = 39  # fewer, and FAISS's k-means calls its centroids unreliable
_ANY_DIM = 64  # for a look at a string before the width of the vectors is known


def library() -> Any:
    """FAISS, imported on first use; untyped, since its stubs lack much of what is used here."""
    import faiss

    return faiss


def default_factory(n: int, dim: int) -> str:
    """The structure for n rows: lists near 2.4 square roots of n, of 39 rows at least, and two bits a dimension.

    On 45,000 MiniLM vectors a query took 0.22 ms for recall@10 0.96 with PQ192x4fs, 0.27 with PQ96x4fs, 0.49 with
    RaBitQfs, 0.40 with SQ8 and 0.51 with Flat, on one core. Few rows are best left as they are.
    """
    if n < _FLAT_BELOW:
        return "Flat"
    lists = min(1 << round(math.log2(2.4 * math.sqrt(n))), n // _ROWS_A_LIST)
    return f"IVF{lists},PQ{dim // 2}x4fs" if dim % 2 == 0 else f"IVF{lists},SQ8"


def default_nprobe(lists: int) -> int:
    """Lists that are searched: three square roots of all, at most all; recall@10 0.96 on the vectors above."""
    return max(1, min(lists, round(3 * math.sqrt(lists))))


def check_factory(factory: str) -> None:
    """Refuse what FAISS cannot read, whatever the vectors.

    Raises:
        ConfigError: names the part and gives examples.
    """
    try:
        index = _made(_ANY_DIM, factory)
    except RuntimeError as error:
        _blame(factory, str(error), dim=None)
        return
    _check_type(factory, index)


def empty_index(dim: int, factory: str) -> Any:
    """The untrained index that a string describes, for inner products.

    Raises:
        ConfigError: FAISS cannot read a part of it, or not for vectors of this width.
    """
    try:
        index = _made(dim, factory)
    except RuntimeError as error:
        _blame(factory, str(error), dim=dim)
        raise ConfigError(
            f"factory {factory!r} does not fit vectors of width {dim}: {reason_of(error)}; "
            f"examples: {EXAMPLES}"
        ) from None
    _check_type(factory, index)
    return index


def parts_of(factory: str) -> list[str]:
    """The parts between commas, those within parentheses left whole."""
    parts, depth = [""], 0
    for letter in factory:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _made(dim: int, factory: str) -> Any:
    faiss = library()

    return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)


def _check_type(factory: str, index: Any) -> None:
    """Graphs have a kind of their own, and rows are numbered by this one."""
    faiss = library()

    inner = innermost(index)
    if not isinstance(inner, faiss.IndexIVF | faiss.IndexFlatCodes | faiss.IndexFastScan):
        name = type(inner).__name__.removeprefix("Index")
        raise ConfigError(
            f"factory {factory!r} makes an index of type {name}, which the kind ivf does not search "
            f"(graphs are the kind hnsw); examples: {EXAMPLES}"
        )
    if isinstance(inner, faiss.IndexIVF) and inner.nlist < 1:
        raise ConfigError(f"factory {factory!r} has no list; examples: {EXAMPLES}")


def innermost(index: Any) -> Any:
    """The index that holds the codes, below transforms and refinements; valid for as long as the whole one is kept."""
    faiss = library()

    layer = faiss.downcast_index(index)
    if isinstance(layer, faiss.IndexPreTransform):
        return innermost(layer.index)
    if isinstance(layer, faiss.IndexRefine):
        return innermost(layer.base_index)
    return layer


def lists_of(index: Any) -> int:
    """Lists of an index, 0 where it has none."""
    return int(getattr(innermost(index), "nlist", 0))


def code_size(index: Any) -> int:
    """Bytes of a row, its refinement included."""
    faiss = library()

    layer = faiss.downcast_index(index)
    if isinstance(layer, faiss.IndexPreTransform):
        return code_size(layer.index)
    if isinstance(layer, faiss.IndexRefine):
        return code_size(layer.base_index) + code_size(layer.refine_index)
    return int(layer.code_size)


def _blame(factory: str, reason: str, dim: int | None) -> None:
    """Name the part that cannot be read by itself; for an unknown width (None) a part that only does not fit is fine.

    Raises:
        ConfigError: there is one, or FAISS reads all parts but not together.
    """
    for part in parts_of(factory):
        reasons = [
            _refusal(dim or _ANY_DIM, form) for form in (part, f"{part},Flat", f"Flat,{part}", f"IVF1,{part}")
        ]
        if None in reasons:
            continue
        unread = [why for why in reasons if why is not None and _unreadable(why)]
        if len(unread) == len(reasons):
            raise ConfigError(f"factory {factory!r}: FAISS cannot read {part!r}; examples: {EXAMPLES}")
        why = next(why for why in reasons if why is not None and not _unreadable(why))
        if dim is not None or "METRIC_L2" in why or "inner prod" in why:
            width = "" if dim is None else f" for vectors of width {dim}"
            raise ConfigError(
                f"factory {factory!r}: FAISS refuses {part!r}{width}: {reason_of(why)}; examples: {EXAMPLES}"
            )
    if _unreadable(reason):
        raise ConfigError(
            f"factory {factory!r}: FAISS reads its parts but not together ({reason_of(reason)}); the order is "
            f"transforms, IVF, code, refinement; examples: {EXAMPLES}"
        )


def _refusal(dim: int, factory: str) -> str | None:
    """Why FAISS makes nothing of a string; None where it does."""
    try:
        _made(dim, factory)
    except RuntimeError as error:
        return str(error)
    return None


def _unreadable(reason: str) -> bool:
    return "could not parse" in reason


def reason_of(error: RuntimeError | str) -> str:
    """FAISS's words without its source file and line."""
    return re.split(r"\.cpp:\d+: (?:Error: )?", str(error))[-1].strip()
