"""How telling words and word pieces are, over all sets alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis import ENGLISH_STOP_WORDS
from retrieval.encoders.codes.words import ENGLISH, document_shares, idf_of
from retrieval.encoders.transformer.term_tokens import TermTokenizer
from retrieval.values import Document
from training.codes.reader import Ids
from training.examples.training_set import TrainingSet

_MARKS = "#Ġ▁"  # what tokenizers put before a piece that goes on with a word, or begins one

_TOGETHER = 4096  # documents whose words are counted at a time


def telling_pieces(tokenizer: TermTokenizer, n_pieces: int) -> NDArray[np.bool_]:
    """(V,) word pieces that say something: no special tokens, no stop words, nothing without a letter or digit."""
    telling = np.array([_tells(name) for name in tokenizer.names(n_pieces)], dtype=np.bool_)
    telling[tokenizer.special_terms()] = False
    return telling


def _tells(name: str) -> bool:
    piece = name.lstrip(_MARKS) or name
    whole = not name.startswith("##")
    unused = name.startswith("[") and name.endswith("]")
    return any(map(str.isalnum, piece)) and not unused and not (whole and piece.lower() in ENGLISH_STOP_WORDS)


def piece_idf(sets: Sequence[Sequence[Ids]], telling: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(V,) BM25's idf of word pieces, 0 for those that say nothing; one that no document has gets the most.

    Args:
        sets: for each set the ids of its documents; sets count alike, whatever their size.
        telling: (V,) which pieces count.
    """
    shares = [
        np.bincount(np.concatenate([np.unique(part) for part in ids]), minlength=len(telling)) / len(ids)
        for ids in sets
    ]
    return np.where(telling, idf_of(np.mean(shares, axis=0)), 0).astype(np.float32)


def word_statistics(sets: Sequence[TrainingSet], buckets: int) -> tuple[NDArray[np.float32], float]:
    """The idf of words, and how many terms a document of middle length has.

    Sets count alike for the idf. The length is the mean over the sets' mean lengths, each weighted by itself: sentences
    say little about how long documents are.

    Args:
        sets: with all of their documents.
        buckets: of words.
    """
    shares = np.zeros(buckets)
    lengths = []
    for data in sets:
        n_terms = 0
        for start in range(0, data.documents.height, _TOGETHER):
            texts = data.documents["text"].slice(start, _TOGETHER).to_list()
            terms = ENGLISH.encode_documents([Document("", text) for text in texts])
            shares += document_shares(terms, buckets) * (len(texts) / (data.documents.height * len(sets)))
            n_terms += int(terms.lengths.sum())
        lengths.append(n_terms / data.documents.height)
    return idf_of(shares), float(np.average(lengths, weights=lengths)) if any(lengths) else 1.0
