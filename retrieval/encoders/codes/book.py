"""What was learned once for words and codes: projection, codes, features, weights of words, tables for queries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.transformer.checkpoint import BOOK
from retrieval.encoders.transformer.identity import file_digest
from retrieval.encoders.transformer.packed import write_tensors
from retrieval.errors import CorruptError

CONFIG = BOOK
TENSORS = "codes.safetensors"
NAMES = "names.txt"


@dataclass(frozen=True)
class CodeSettings:
    """How vectors are made; the defaults were chosen on training queries.

    Attributes:
        model: the encoder below, as ``locate`` takes it.
        model_digest: of its checkpoint.
        k1, b: of BM25, in the weights of a document's words.
        words: terms of a document of middle length.
        document_codes: token codes of a document, at most.
        document_features: features of a document, at most.
        token_codes: codes that each token of a query looks at.
        least_cosine: below which a query's token ignores a code.
        sharpness: power of what is above.
        rarity: power of a word piece's idf in its weight in a query.
        code_weight, feature_weight: of the parts of a query beside its words.
        query_features: features of a query, at most.
        static_codes, static_features: the most of each in a query that is made without the model.
        static_code_weight, static_feature_weight: of the parts of such a query.
    """

    model: str
    model_digest: str
    k1: float = 0.9
    b: float = 0.4
    words: float = 100.0
    document_codes: int = 50
    document_features: int = 32
    token_codes: int = 16
    least_cosine: float = 0.3
    sharpness: float = 2.0
    rarity: float = 0.5
    code_weight: float = 1.0
    feature_weight: float = 15.0
    query_features: int = 32
    static_codes: int = 24
    static_features: int = 32
    static_code_weight: float = 0.5
    static_feature_weight: float = 10.0


_TENSORS: dict[str, str] = {
    "projection": "float16",
    "codes": "float16",
    "feature_directions": "int8",
    "feature_scales": "float16",
    "feature_bias": "float32",
    "feature_mean": "float16",
    "word_idf": "float16",
    "piece_idf": "float16",
    "static_codes": "int16",
    "static_code_weights": "float16",
    "static_signs": "uint8",
    "static_scales": "float16",
    "static_matrix": "float16",
    "static_mean": "float16",
}
"""The tensors of the file in their order, with their types."""


@dataclass(frozen=True, eq=False)
class CodeBook:
    """The learned part of a ``CodesEncoder``.

    Shapes: H width of the model, D of the projected token vectors, C token codes, S features, W buckets of words (a
    power of two), V word pieces.

    Attributes:
        settings: how vectors are made.
        projection: (H, D) float16, of unit token vectors.
        codes: (C, D) float16 unit vectors.
        feature_directions: (S, H) int8, a row is multiplied by its scale.
        feature_scales: (S,) float16.
        feature_bias: (S,) float32.
        feature_mean: (H,) float16, taken off a text's vector first.
        word_idf: (W,) float16, of words in general.
        piece_idf: (V,) float16, of word pieces; 0 for those that have no codes, such as stop words.
        static_codes, static_code_weights: (V, n) int16 and float16, codes that a word piece stands for in a query.
        static_signs: (V, H / 8) uint8, signs of the vector that a word piece stands for in a query, packed.
        static_scales: (V,) float16, what these signs are multiplied by.
        static_matrix, static_mean: (H, H) and (H,) float16, from the mean of a query's pieces to its vector.
        names: C + S, of codes and features, for people.
    """

    settings: CodeSettings
    projection: NDArray[np.float16]
    codes: NDArray[np.float16]
    feature_directions: NDArray[np.int8]
    feature_scales: NDArray[np.float16]
    feature_bias: NDArray[np.float32]
    feature_mean: NDArray[np.float16]
    word_idf: NDArray[np.float16]
    piece_idf: NDArray[np.float16]
    static_codes: NDArray[np.int16]
    static_code_weights: NDArray[np.float16]
    static_signs: NDArray[np.uint8]
    static_scales: NDArray[np.float16]
    static_matrix: NDArray[np.float16]
    static_mean: NDArray[np.float16]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        (width, dim), n_codes, n_features = self.projection.shape, len(self.codes), len(self.feature_scales)
        n_pieces, n_words = len(self.piece_idf), len(self.word_idf)
        shapes = {
            "codes": (n_codes, dim),
            "feature_directions": (n_features, width),
            "feature_bias": (n_features,),
            "feature_mean": (width,),
            "static_code_weights": self.static_codes.shape,
            "static_signs": (n_pieces, width // 8),
            "static_scales": (n_pieces,),
            "static_matrix": (width, width),
            "static_mean": (width,),
        }
        for name, kind in _TENSORS.items():
            array = getattr(self, name)
            if array.dtype.name != kind or array.shape != shapes.get(name, array.shape):
                raise ValueError(f"{name} is {array.dtype} {array.shape}")
            if kind.startswith("float") and not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite")
        if n_words & (n_words - 1) or not n_words:
            raise ValueError(f"there are {n_words} buckets of words, not a power of two")
        if len(self.static_codes) != n_pieces:
            raise ValueError(f"the table of queries is not of {n_pieces} word pieces")
        table = self.static_codes
        if table.size and not 0 <= int(table.min()) <= int(table.max()) < n_codes:
            raise ValueError("the table of queries has codes that do not exist")
        if len(self.names) != n_codes + n_features:
            raise ValueError(
                f"there are {len(self.names)} names for {n_codes + n_features} codes and features"
            )

    @property
    def first_code(self) -> int:
        """The dimension of the first code; words come before."""
        return len(self.word_idf)

    @property
    def first_feature(self) -> int:
        """The dimension of the first feature."""
        return self.first_code + len(self.codes)

    @property
    def dim(self) -> int:
        """The width of vectors: W + C + S."""
        return self.first_feature + len(self.feature_scales)

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """(S, H) directions of the features."""
        scales = self.feature_scales.astype(np.float32)[:, None]
        return np.asarray(self.feature_directions.astype(np.float32) * scales)

    def save(self, folder: Path) -> None:
        """Write three files into an existing folder; the same book gives the same bytes."""
        write_tensors(folder / TENSORS, {name: getattr(self, name) for name in _TENSORS})
        text = json.dumps({"format": 1, **asdict(self.settings)}, indent=1)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
        (folder / NAMES).write_text("".join(f"{name}\n" for name in self.names), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            CorruptError: a file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        settings = read_settings(folder)
        try:
            tensors = load_file(folder / TENSORS)
            names = tuple((folder / NAMES).read_text(encoding="utf-8").splitlines())
            return cls(settings, **{name: tensors[name] for name in _TENSORS}, names=names)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CorruptError(folder / TENSORS, f"not a complete book of codes ({error})") from error


def is_book(folder: Path) -> bool:
    """Whether a folder holds a book of codes."""
    return (folder / CONFIG).is_file()


def read_settings(folder: Path) -> CodeSettings:
    """The settings of a book, without its tensors.

    Raises:
        CorruptError: the file is missing, damaged or of another version.
    """
    path = folder / CONFIG
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wanted = {field.name for field in fields(CodeSettings)}
        if found["format"] != 1 or wanted != found.keys() - {"format"}:
            raise ValueError("it is of another version")
        return CodeSettings(**{name: found[name] for name in wanted})
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(path, f"not the settings of a book of codes ({error})") from error


def book_digest(folder: Path) -> str:
    """Identity of the numbers and settings of a book; names do not count.

    Raises:
        CorruptError: a file is missing.
    """
    try:
        return f"{file_digest(folder / CONFIG)}{file_digest(folder / TENSORS)}"
    except OSError as error:
        raise CorruptError(folder, f"a file of the book of codes is missing ({error})") from error
