"""The objective of every family, with and without GradCache, and which documents count as rivals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from indexing.progress import Silent
from training.auxiliaries.table import Sizes
from training.examples.drawing import text_key
from training.families.family import Sample
from training.families.table import family
from training.recipe.options import LossOptions, ModelOptions
from training.scored import Scored
from training.trainer.batches import Reader
from training.trainer.objective import Objective, Term, open_terms, rivals

QUERIES = ("river", "the cat", "fast red fish", "old index")
DOCUMENTS = (
    ("river mountain search engine", "the dog"),
    ("the cat and the dog in the river of a mountain", "a bird"),
    ("fast red fish, slow green bird", "old"),
    ("index of an old engine", "river mountain search engine"),
)


def columns() -> dict[str, Sequence[Any]]:
    return {
        "query": list(QUERIES),
        "document_0": [texts[0] for texts in DOCUMENTS],
        "document_1": [texts[1] for texts in DOCUMENTS],
        "labels": [[1.0, 0.0]] * 4,
        "scores": [[2.0, 0.5], [1.0, 0.1], [3.0, 2.0], [0.4, 0.2]],
        "keys": [[text_key(text) for text in texts] for texts in DOCUMENTS],
        "relevant": [[text_key(texts[0])] for texts in DOCUMENTS],
        "domain": [0] * 4,
    }


def opened(name: str, base: Path, **options: Any) -> Any:
    sample = Sample(QUERIES, tuple(texts[0] for texts in DOCUMENTS))
    chosen = ModelOptions(base=str(base), max_length=16, options=options)
    return family(name).open(chosen, 0, sample, Silent()).train()


CASES = [
    ("dense", {}, [LossOptions("ranking", matryoshka=(8,)), LossOptions("margin-mse", weight=0.1)]),
    ("sparse", {}, [LossOptions("ranking"), LossOptions("flops", weight=0.01)]),
    (
        "sparse",
        {"queries": "static"},
        [LossOptions("distillation"), LossOptions("flops", options={"who": "queries"})],
    ),
    ("late", {"dim": 8, "query_weights": True}, [LossOptions("ranking", options={"temperature": 1.0})]),
    ("reranker", {}, [LossOptions("listwise"), LossOptions("margin-mse")]),
]


@pytest.mark.parametrize(("name", "options", "losses"), CASES)
def test_chunks_have_the_loss_and_the_gradients_of_the_whole_batch(
    name: str, options: dict[str, Any], losses: list[LossOptions], still: Path
) -> None:
    if name == "sparse":
        options = options | {"threshold": 1.0}
    model = opened(name, still, **options)
    batch = Reader(family(name), model)(columns())

    def passed(chunk: int) -> tuple[float, dict[str, torch.Tensor]]:
        model.zero_grad()
        terms = open_terms(losses, Sizes(32, 100, 1))
        objective = Objective(model, family(name), terms, chunk=chunk)
        objective.progress = 1.0
        loss, parts = objective(batch)
        loss.backward()
        assert set(parts) == {term.name for term in terms}
        gradients = {
            key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None
        }
        return float(loss), gradients

    whole, gradients = passed(0)
    cached, again = passed(3)
    assert cached == pytest.approx(whole, rel=1e-4)
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 0
    assert again.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(again[key], gradient, rtol=1e-3, atol=1e-4, msg=key)


def test_chunks_replay_dropout(make_checkpoint: Callable[..., Path]) -> None:
    """The second pass must see the masks of the first, else its gradients belong to other vectors."""
    model = opened("dense", make_checkpoint(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.0))
    batch = Reader(family("dense"), model)(columns())
    kept: list[torch.Tensor] = []
    layer = model[0].auto_model.encoder.layer[1]
    layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output.detach()))
    objective = Objective(
        model, family("dense"), open_terms([LossOptions("ranking")], Sizes(32, 100, 1)), chunk=4
    )
    loss, _ = objective(batch)
    first = list(kept)
    loss.backward()
    assert len(kept) == 2 * len(first) == 6
    for before, after in zip(first, kept[len(first) :], strict=True):
        torch.testing.assert_close(after, before)


def test_documents_that_answer_are_no_negatives_of_another_query() -> None:
    scored = Scored(torch.zeros(4, 8), n=2)
    batch = columns()
    keys = torch.tensor(batch["keys"]).flatten()
    found = rivals(scored, keys, torch.tensor(batch["relevant"]))
    expected = torch.zeros(4, 8, dtype=torch.bool)
    expected[0, 7] = True  # the fourth query's negative is the first query's answer
    assert torch.equal(found, expected)


def test_rivals_are_found_among_answers_in_any_order() -> None:
    scored = Scored(torch.zeros(2, 4), n=2)
    found = rivals(scored, torch.tensor([5, 1, -3, 9]), torch.tensor([[9, -3, 5], [1, 1, 1]]))
    assert found.tolist() == [[False, False, True, True], [False, True, False, False]]


def test_a_reranker_compares_a_query_with_its_own_documents_alone(still: Path) -> None:
    model = opened("reranker", still)
    seen: list[Scored] = []

    def look(scored: Scored) -> torch.Tensor:
        seen.append(scored)
        return scored.own.sum()

    objective = Objective(model, family("reranker"), [Term("look", look, LossOptions("look"))])
    objective(Reader(family("reranker"), model)(columns()))
    (scored,) = seen
    pairs = [(query, text) for query, texts in zip(QUERIES, DOCUMENTS, strict=True) for text in texts]
    model.eval()
    expected = torch.tensor(model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False))
    torch.testing.assert_close(scored.own.detach().flatten(), expected, rtol=1e-4, atol=1e-5)
    assert scored.rivals is not None
    assert not scored.rivals.gather(1, scored.columns).any()
    assert int(scored.rivals.sum()) == 4 * 6


def test_weights_rise_quadratically() -> None:
    (term,) = open_terms([LossOptions("flops", weight=2.0, warmup=0.5)], Sizes(1, 1, 1))
    assert [term.weight(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.5, 2.0, 2.0]


def test_terms_of_one_name_are_told_apart() -> None:
    terms = open_terms(
        [LossOptions("flops"), LossOptions("flops", options={"who": "queries"})], Sizes(1, 1, 1)
    )
    assert [term.name for term in terms] == ["flops", "flops-2"]
