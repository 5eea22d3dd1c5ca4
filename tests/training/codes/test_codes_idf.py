"""Which words and word pieces tell something, and how much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval.encoders.codes.words import bucket, idf_of
from retrieval.encoders.transformer.term_tokens import TermTokenizer
from retrieval.encoders.transformer.tokens import Tokenizer
from training.codes.idf import piece_idf, telling_pieces, word_statistics
from training.examples.reading import read_training_set


def test_special_tokens_stop_words_and_signs_tell_nothing(tiny_bert: Path) -> None:
    tokenizer = TermTokenizer(tiny_bert, None)
    names = list(tokenizer.names(60))
    telling = dict(zip(names, telling_pieces(tokenizer, 60).tolist(), strict=True))
    assert not any(telling[name] for name in ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "the", "of", "and", "a"))
    assert all(telling[name] for name in ("river", "cat", "search"))
    assert not any(value for name, value in telling.items() if not any(map(str.isalnum, name)))


def test_the_idf_of_a_piece_is_the_mean_over_sets(tiny_bert: Path) -> None:
    tokenizer = Tokenizer(tiny_bert, 32)
    river, cat, dog = (int(tokenizer([word]).ids[0][1]) for word in ("river", "cat", "dog"))
    sets = [tokenizer(["river river", "cat"]).ids, tokenizer(["cat", "cat", "cat", "river cat"]).ids]
    telling = np.ones(200, dtype=np.bool_)
    telling[cat] = False
    found = piece_idf(sets, telling)
    assert found[river] == pytest.approx(idf_of(np.array([(1 / 2 + 1 / 4) / 2]))[0])
    assert found[cat] == 0
    assert found[dog] == found.max() == pytest.approx(idf_of(np.zeros(1))[0])


def test_words_are_counted_over_sets_alike_and_lengths_where_terms_are(
    tmp_path: Path, write_set: Callable[..., Path]
) -> None:
    sets = [read_training_set(write_set(tmp_path / name, n)) for name, n in (("one", 4), ("two", 12))]
    idf, middle = word_statistics(sets, 1024)
    # "old" is in every document, "bird" in none
    assert idf[bucket("old", 1024)] == pytest.approx(idf_of(np.ones(1))[0])
    assert idf[bucket("bird", 1024)] == pytest.approx(idf_of(np.zeros(1))[0])
    # "mountain" is word 5: in two of twelve documents
    assert idf[bucket("mountain", 1024)] == pytest.approx(idf_of(np.array([2 / 12 / 2]))[0])
    assert middle == pytest.approx(4)
