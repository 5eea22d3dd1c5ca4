"""What crosses between numpy and Java in bulk: a bitmap in, the rows and scores of a result out.

Reading 10,000 hits one Java object at a time takes 150 ms. So the loops are Java's own streams, put together from
method handles into one function each, and only whole arrays cross: 3 ms.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexing.lucene.jvm import java
from retrieval.bitmap import Bitmap

_WRAP = "([B)Ljava/nio/ByteBuffer;"


class _Functions(NamedTuple):
    """Java functions.

    Attributes:
        bit_set: (ByteBuffer, number of bits) -> FixedBitSet.
        rows: TopDocs -> int[], scores: TopDocs -> double[].
    """

    bit_set: Any
    rows: Any
    scores: Any


def bit_set(allowed: Bitmap) -> Any:
    """A Lucene ``Bits`` of the same rows.

    A last bit beyond the rows keeps java.util.BitSet, which reads the bytes, from dropping the words that are zero
    at the end.
    """
    padding = bytes(-len(allowed.bits) % 8 + 7) + b"\x80"
    buffer = java("java.nio.ByteBuffer").wrap(allowed.bits.tobytes() + padding, signature=_WRAP)
    return _functions().bit_set.apply(buffer, allowed.n)


def read_hits(top_docs: Any) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(n,) rows and (n,) scores of a ``TopDocs``, best first."""
    functions = _functions()
    rows, scores = functions.rows.apply(top_docs), functions.scores.apply(top_docs)
    return np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float32)


@functools.cache
def _functions() -> _Functions:
    stream = _static("java.util.Arrays", "stream", "java.util.stream.Stream", "[Ljava.lang.Object;")
    hits = _field("org.apache.lucene.search.TopDocs", "scoreDocs", "[Lorg.apache.lucene.search.ScoreDoc;")
    return _Functions(
        bit_set=_as_function("java.util.function.BiFunction", _bits_of_buffer()),
        rows=_as_function("java.util.function.Function", _chain(hits, stream, *_column("doc", "Int", "[I"))),
        scores=_as_function(
            "java.util.function.Function", _chain(hits, stream, *_column("score", "Double", "[D"))
        ),
    )


def _bits_of_buffer() -> Any:
    """(ByteBuffer, int) -> FixedBitSet."""
    words = _chain(
        _static("java.util.BitSet", "valueOf", "java.util.BitSet", "java.nio.ByteBuffer"),
        _method("java.util.BitSet", "toLongArray", "[J"),
    )
    made = _lookup().findConstructor(_class("org.apache.lucene.util.FixedBitSet"), _type("V", "[J", "I"))
    generic = made.asType(java("java.lang.invoke.MethodType").genericMethodType(2))
    return java("java.lang.invoke.MethodHandles").filterArguments(generic, 0, words)


def _column(name: str, primitive: str, array: str) -> tuple[Any, Any]:
    """Stream<ScoreDoc> -> stream of a field, and that -> array."""
    interface, stream = f"java.util.function.To{primitive}Function", f"java.util.stream.{primitive}Stream"
    getter = _field("org.apache.lucene.search.ScoreDoc", name, "I" if primitive == "Int" else "F")
    mapped = _method("java.util.stream.Stream", f"mapTo{primitive}", stream, interface)
    bound = java("java.lang.invoke.MethodHandles").insertArguments(mapped, 1, _as_function(interface, getter))
    return bound, _method(stream, "toArray", array)


def _chain(*handles: Any) -> Any:
    """The functions one after another, each of one argument."""
    one = java("java.lang.invoke.MethodType").genericMethodType(1)
    chained = handles[0].asType(one)
    for handle in handles[1:]:
        chained = java("java.lang.invoke.MethodHandles").filterReturnValue(chained, handle.asType(one))
    return chained


def _as_function(interface: str, handle: Any) -> Any:
    return java("java.lang.invoke.MethodHandleProxies").asInterfaceInstance(_class(interface), handle)


def _static(owner: str, name: str, returns: str, *takes: str) -> Any:
    return _lookup().findStatic(_class(owner), name, _type(returns, *takes))


def _method(owner: str, name: str, returns: str, *takes: str) -> Any:
    return _lookup().findVirtual(_class(owner), name, _type(returns, *takes))


def _field(owner: str, name: str, kind: str) -> Any:
    return _lookup().findGetter(_class(owner), name, _class(kind))


def _lookup() -> Any:
    return java("java.lang.invoke.MethodHandles").publicLookup()


def _type(returns: str, *takes: str) -> Any:
    made = java("java.lang.invoke.MethodType").methodType
    return made(_class(returns), [_class(name) for name in takes]) if takes else made(_class(returns))


_PRIMITIVES = {"I": "java.lang.Integer", "F": "java.lang.Float", "V": "java.lang.Void"}


def _class(name: str) -> Any:
    """The java.lang.Class of a full name, a primitive's letter or an array's signature."""
    import jnius  # type: ignore[import-not-found,import-untyped,unused-ignore]

    return java(_PRIMITIVES[name]).TYPE if name in _PRIMITIVES else jnius.find_javaclass(name)
