"""Books of codes from a recipe: one pass of a model over documents, and what is learnt from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.progress import Progress
from retrieval.encoders.codes.book import CodeBook, CodeSettings
from retrieval.encoders.options import Option, read_options
from retrieval.encoders.token_pooling import unit_rows
from retrieval.encoders.transformer.architectures import reading_length, runs_directly
from retrieval.encoders.transformer.checkpoint import read_checkpoint
from retrieval.encoders.transformer.identity import checkpoint_digest
from retrieval.encoders.transformer.location import DEFAULT_MODEL, locate
from retrieval.encoders.transformer.term_tokens import TermTokenizer
from retrieval.errors import ConfigError
from training.codes.features import FeatureTraining, train_features
from training.codes.idf import piece_idf, telling_pieces, word_statistics
from training.codes.names import naming_pieces, nearest_words
from training.codes.reader import Reader
from training.codes.static_tables import Bags, Pieces, fit_static_vectors, piece_vectors, static_codes
from training.codes.texts import Texts, texts_of
from training.codes.token_codes import fit_codes, fit_projection
from training.codes.vectors import Sampling, Seen, see_documents, see_pieces, see_texts
from training.examples.training_set import TrainingSet
from training.recipe.options import ModelOptions

OPTIONS: dict[str, Option] = {
    "documents": Option(int, default=5000, least=1),
    "queries": Option(int, default=4000, least=0),
    "crops": Option(int, default=9000, least=1),
    "tokens": Option(int, default=65_000, least=1),
    "dim": Option(int, default=128, least=1),
    "codes": Option(int, default=2048, least=1),
    "rounds": Option(int, default=10, least=1),
    "features": Option(int, default=4096, least=1),
    "steps": Option(int, default=1000, least=1),
    "batch": Option(int, default=384, least=2),
    "word_bits": Option(int, default=17, least=1),
    "static_codes": Option(int, default=8, least=1),
}
"""``documents``, ``queries`` and ``crops`` (pieces of documents that stand for queries): read of each set, at most;
``tokens``: token vectors of each set that codes are made of; ``dim``: of projected token vectors; ``codes``: of tokens;
``rounds``: of k-means; ``features``: of whole texts, trained in so many ``steps`` of ``batch`` texts; ``word_bits``:
words are hashed to 2 to the power of this many dimensions; ``static_codes``: of a word piece in queries that are read
without the model."""

_MOST = {"codes": 1 << 15, "features": 1 << 15, "word_bits": 24}


class CodesFamily:
    """Words and codes, in one sparse vector (see `retrieval/encoders/codes`): a model that is not trained itself.

    Its documents alone matter, and queries as examples of short texts; there are no negatives, teachers, losses or
    `[optim]`, and of `[model]` only `base`, `max_length` and options. A run that was killed begins anew.
    """

    def fit(
        self, options: ModelOptions, sets: Sequence[TrainingSet], seed: int, progress: Progress
    ) -> tuple[CodeBook, list[dict[str, float]]]:
        """A book of codes, and the curve of its features' loss; the same arguments on one machine give the same book.

        Raises:
            ConfigError: an unknown option, a base that is no BERT-like dense model, or too few texts.
            CorruptError: a file of the base is damaged.
        """
        chosen = read_options("codes", options.options, OPTIONS)
        for name, most in _MOST.items():
            if chosen[name] > most:
                raise ConfigError(f"model.options.{name} is {chosen[name]}; it can be {most} at most")
        base = locate(options.base)
        checkpoint = read_checkpoint(base)
        if not runs_directly(checkpoint) or len(checkpoint.pooling) != 1:
            raise ConfigError(
                f"codes need a BERT-like dense model with one way of pooling, not {options.base}"
            )
        reading_length(checkpoint, options.max_length)
        reader = Reader.open(checkpoint, options.max_length)
        tokenizer = TermTokenizer(
            checkpoint.transformer, None, bool(checkpoint.wrapper.get("do_lower_case", False))
        )
        word_idf, middle = word_statistics(sets, 1 << chosen["word_bits"])
        settings = CodeSettings(
            _lasting(options.base, base), checkpoint_digest(checkpoint), words=round(middle, 1)
        )
        fitting = _Fitting(reader, tokenizer, settings, chosen, seed, progress)
        return fitting.book(sets, word_idf)


def _lasting(name: str, folder: Path) -> str:
    """What the model is called in the book: a folder by its whole path, since the book may be used from elsewhere."""
    return str(folder) if name != DEFAULT_MODEL and Path(name).expanduser().is_dir() else name


@dataclass(frozen=True, eq=False)
class _Material:
    """What was read.

    Attributes:
        idf: (V,) of word pieces.
        seen: of each set's documents.
        bags: of each set's short texts.
        pieces: of the vocabulary.
    """

    idf: NDArray[np.float32]
    seen: Sequence[Seen]
    bags: Sequence[Bags]
    pieces: Pieces


@dataclass(frozen=True, eq=False)
class _Fitting:
    """One fit; the parts of ``fit`` share it."""

    reader: Reader
    tokenizer: TermTokenizer
    settings: CodeSettings
    chosen: Mapping[str, Any]
    seed: int
    progress: Progress

    def book(
        self, sets: Sequence[TrainingSet], word_idf: NDArray[np.float32]
    ) -> tuple[CodeBook, list[dict[str, float]]]:
        chosen, settings = self.chosen, self.settings
        found = self.material(sets)
        tokens = np.concatenate([one.tokens for one in found.seen])
        projection = fit_projection(tokens, min(chosen["dim"], tokens.shape[1]))
        codes = fit_codes(
            tokens, projection, chosen["codes"], chosen["rounds"], self._rng("codes"), self.progress
        )
        active = min(settings.document_features, chosen["features"])
        training = FeatureTraining(chosen["features"], active, chosen["steps"], chosen["batch"], self.seed)
        features, curve = train_features([one.pooled for one in found.seen], training, self.progress)
        directions, scales = features.bytes_and_scales()
        telling = found.idf > 0
        near = piece_vectors(found.pieces, projection.matrix)
        own_codes, weights = static_codes(near, codes, telling, chosen["static_codes"], settings.least_cosine)
        static = fit_static_vectors(
            found.pieces, found.bags, found.idf**settings.rarity, self._rng("static vectors")
        )
        names = list(self.tokenizer.names(len(telling)))
        named = naming_pieces(names, telling, found.pieces.counts)
        words = [names[piece] for piece in named]
        in_context = unit_rows(found.pieces.in_context[named]) - features.mean
        book = CodeBook(
            settings,
            projection=projection.matrix.astype(np.float16),
            codes=codes.astype(np.float16),
            feature_directions=directions,
            feature_scales=scales,
            feature_bias=features.bias,
            feature_mean=features.mean.astype(np.float16),
            word_idf=word_idf.astype(np.float16),
            piece_idf=found.idf.astype(np.float16),
            static_codes=own_codes,
            static_code_weights=weights,
            static_signs=static.signs,
            static_scales=static.scales,
            static_matrix=static.matrix,
            static_mean=static.mean,
            names=(
                *nearest_words(codes, near[named], words),
                *nearest_words(features.directions, in_context, words),
            ),
        )
        return book, curve

    def material(self, sets: Sequence[TrainingSet]) -> _Material:
        """Everything that needs the model."""
        chosen, reader = self.chosen, self.reader
        n_pieces = len(reader.bert.words)
        telling = telling_pieces(self.tokenizer, n_pieces)
        texts = [self._texts(data) for data in sets]
        read = [reader.tokenizer(one.documents).ids for one in texts]
        short = [reader.tokenizer(one.short).ids for one in texts]
        self.progress.start("documents", sum(map(len, read)), "texts")
        sampling = Sampling(chosen["tokens"])
        seen = [
            see_documents(reader, ids, telling, sampling, self._rng(data.name), self.progress)
            for ids, data in zip(read, sets, strict=True)
        ]
        self.progress.start("short texts", sum(map(len, short)), "texts")
        bags = [Bags(ids, see_texts(reader, ids, self.progress)) for ids in short]
        return _Material(piece_idf(read, telling), seen, bags, self._pieces(seen, n_pieces))

    def _texts(self, data: TrainingSet) -> Texts:
        chosen = self.chosen
        return texts_of(data, chosen["documents"], chosen["queries"], chosen["crops"], self.seed)

    def _pieces(self, seen: Sequence[Seen], n_pieces: int) -> Pieces:
        pooled, alone = see_pieces(self.reader, n_pieces)
        return Pieces(
            unit_rows(self.reader.bert.words.float().cpu().numpy()),
            pooled,
            alone,
            np.sum([one.sums for one in seen], axis=0),
            np.sum([one.counts for one in seen], axis=0),
        )

    def _rng(self, purpose: str) -> np.random.Generator:
        """A generator of its own for each purpose, so that one draw more changes nothing else."""
        return np.random.default_rng([self.seed, *purpose.encode()])


CODES = CodesFamily()
"""The family."""
