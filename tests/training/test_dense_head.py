"""The linear head of dense models: where it begins, what it leaves as it is, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexing.progress import Silent
from retrieval.encoders.dense import DenseEncoder
from retrieval.errors import ConfigError
from retrieval.values import Document
from training.families.dense import DAMPING, DENSE, whitening
from training.families.family import Sample
from training.recipe.options import ModelOptions
from training.trainer.weights import load_trained, save_trained

WORDS = (
    "alpha beta gamma delta river mountain search engine index vector cat dog bird fish old new red".split()
)
DOCUMENTS = tuple(
    f"{one} {other} {WORDS[(3 * place + 1) % 17]}"
    for place, one in enumerate(WORDS)
    for other in WORDS
    if one != other
)
SAMPLE = Sample(tuple(WORDS), DOCUMENTS)
HEAD = {"head": "linear"}


def opened(base: Path, options: dict[str, Any], **more: Any) -> Any:
    return DENSE.open(
        ModelOptions(base=str(base), max_length=16, options=options, **more), 0, SAMPLE, Silent()
    )


def vectors(model: Any) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        return DENSE.represent(model, DENSE.features(model, DOCUMENTS, "document"), "document")[0].numpy()


def test_damped_whitening_makes_all_axes_alike() -> None:
    generator = np.random.default_rng(0)
    given = generator.normal(size=(200, 6)).astype(np.float32) @ generator.normal(size=(6, 6)).astype(
        np.float32
    )
    moments = given.T.astype(np.float64) @ given
    damped = moments + np.eye(6) * DAMPING * np.trace(moments) / 6
    found = whitening(given)
    alike = found @ damped @ found.T
    np.testing.assert_allclose(alike / alike[0, 0], np.eye(6), atol=1e-5)
    variances = np.square(given @ (found / np.linalg.norm(found, axis=1, keepdims=True)).T).sum(0)
    assert (np.diff(variances) < 0).all()
    assert np.linalg.norm(found, axis=1).max() == pytest.approx(1)


def test_a_new_head_whitens_the_vectors_of_the_sample(still: Path) -> None:
    before = vectors(opened(still, {}))
    after = before @ whitening(before).T
    after /= np.linalg.norm(after, axis=1, keepdims=True)
    found = vectors(opened(still, HEAD))
    np.testing.assert_allclose(
        found @ found.T, after @ after.T, atol=2e-2
    )  # the sample is read in half precision


def test_only_as_many_documents_as_wanted_are_read(still: Path) -> None:
    few = Sample(SAMPLE.queries, DOCUMENTS[:5])
    options = ModelOptions(base=str(still), max_length=16, options=HEAD | {"fit_texts": 5})
    found = [DENSE.open(options, 0, sample, Silent()).state_dict() for sample in (SAMPLE, few)]
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_the_head_is_new(still: Path) -> None:
    model = opened(still, HEAD, lora_layers=0)
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert len(trained) == 1
    assert DENSE.is_new(trained[0])


def test_a_checkpoint_of_the_training_holds_the_head(still: Path, tmp_path: Path) -> None:
    model = opened(still, HEAD, lora_layers=0)
    kept = vectors(model)
    save_trained(model, tmp_path)
    other = opened(still, HEAD | {"fit_texts": 1}, lora_layers=0)
    load_trained(other, tmp_path)
    np.testing.assert_array_equal(vectors(other), kept)


def test_a_saved_model_is_read_without_sentence_transformers_and_cut(still: Path, tmp_path: Path) -> None:
    model = opened(still, HEAD)
    expected = vectors(model)[:, :8]
    DENSE.save(model, tmp_path)
    encoder = DenseEncoder.open(str(tmp_path), {"truncate_dim": 8, "dtype": "float32"})
    assert encoder.runs_directly
    found = encoder.encode_documents([Document(str(row), text) for row, text in enumerate(DOCUMENTS)]).values
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_second_head_is_refused(still: Path, tmp_path: Path) -> None:
    DENSE.save(opened(still, HEAD), tmp_path)
    with pytest.raises(ConfigError, match=r"model\.options\.head .* leave it out"):
        opened(tmp_path, HEAD)
    assert len(list(opened(tmp_path, {}).children())) == 4


def test_a_model_without_unit_length_is_refused(make_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"model\.options\.head"):
        opened(make_checkpoint(normalize=False), HEAD)


def test_an_unknown_head_is_refused(still: Path) -> None:
    with pytest.raises(ConfigError, match="'mlp'; valid: linear"):
        opened(still, {"head": "mlp"})
