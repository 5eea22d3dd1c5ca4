"""The SPLADE head: its closed-form start, the fused pooling it trains with, the pairs it reads, a short run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from eval.metrics import measure
from indexing.progress import Silent
from retrieval.errors import ConfigError, FormatError
from retrieval.values import Hits
from training.splade_head import (
    METRICS,
    Recipe,
    bm25_hits,
    command,
    effectiveness,
    fit,
    fused,
    hold_out,
    initialise_head,
    joined,
    prune,
    quietly,
    read_training_set,
    read_training_sets,
    splade_encoder,
    steps_within,
    train,
)

TEXTS = [
    "river mountain search engine",
    "the cat and the dog in the river of a mountain",
    "fast red fish, slow green bird",
    "index",
    "alpha beta gamma delta old new vector query document",
]
TINY = Recipe(max_length=16, batch=2, dev_queries=2, dev_documents=4, fit_pairs=20, threshold=1.0)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quietly():
        yield


@pytest.fixture
def encoder(make_checkpoint: Callable[..., Path]) -> Any:
    """An encoder of a random model with a fitted head, without dropout."""
    folder = make_checkpoint(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    made = splade_encoder(folder, 16)
    initialise_head(made, TEXTS, threshold=1.0, own_logit=3.0)
    return made


def write_set(folder: Path, n: int = 12, splits: tuple[str, ...] = ("train",)) -> Path:
    """n documents, the i-th with one query of its own, shared out over the splits."""
    words = "alpha beta gamma delta river mountain search engine index vector cat dog bird fish".split()
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": f"d{i}", "title": words[i], "text": f"{words[i]} {words[i - 1]} old"} for i in range(n)
    ]
    queries = [{"_id": f"q{i}", "text": f"the {words[i]} {i}"} for i in range(n)]
    for name, lines in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    for place, split in enumerate(splits):
        rows = [f"q{i}\td{i}\t1" for i in range(place, n, len(splits))] + [f"q{place}\td{n - 1 - place}\t0"]
        (folder / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n"
        )
    return folder


# --- the head --------------------------------------------------------------------------------------


def test_the_head_shares_the_word_embeddings(encoder: Any) -> None:
    model = encoder[0].auto_model
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


def test_the_encoder_weights_are_those_of_the_checkpoint(make_checkpoint: Callable[..., Path]) -> None:
    from transformers import AutoModel

    folder = make_checkpoint()
    mine, theirs = (
        splade_encoder(folder, 16)[0].auto_model.bert.state_dict(),
        AutoModel.from_pretrained(folder),
    )
    for name, weight in theirs.state_dict().items():
        if not name.startswith("pooler"):
            assert torch.equal(mine[name], weight), name


def test_a_saved_encoder_gives_the_same_vectors(encoder: Any, tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    encoder.save(str(tmp_path), create_model_card=False)
    loaded = SparseEncoder(str(tmp_path), device="cpu")
    assert torch.equal(loaded.encode(TEXTS).to_dense(), encoder.encode(TEXTS).to_dense())
    model = loaded[0].auto_model
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    assert loaded.max_seq_length == 16


def test_the_fitted_head_finds_the_words_of_a_text(encoder: Any) -> None:
    weights = encoder.encode(["river mountain search engine"]).to_dense()[0]
    tokens = encoder.tokenizer("river mountain search engine", add_special_tokens=False)["input_ids"]
    others = torch.ones(len(weights), dtype=torch.bool)
    others[tokens] = False
    assert weights[tokens].mean() > 4 * weights[others].mean()
    assert (weights[tokens] > 0).sum() >= 3


def test_special_tokens_are_never_terms(encoder: Any) -> None:
    weights = encoder.encode([*TEXTS, "[MASK] [CLS]"]).to_dense()
    assert torch.all(weights[:, encoder.tokenizer.all_special_ids] == 0)


def test_a_higher_threshold_leaves_fewer_terms(encoder: Any) -> None:
    loose = torch.count_nonzero(encoder.encode(TEXTS).to_dense())
    initialise_head(encoder, TEXTS, threshold=2.0, own_logit=3.0)
    assert 0 < torch.count_nonzero(encoder.encode(TEXTS).to_dense()) < loose


def test_the_gain_sets_the_logit_of_a_tokens_own_term(encoder: Any) -> None:
    logits = encoder.preprocess(TEXTS)
    tokens, present = logits["input_ids"], logits["attention_mask"].bool()
    with torch.no_grad():
        found = encoder[0].auto_model(input_ids=tokens, attention_mask=present.long()).logits
    own = found.gather(2, tokens[..., None])[..., 0]
    ordinary = present & ~torch.isin(tokens, torch.tensor(encoder.tokenizer.all_special_ids))
    assert own[ordinary & (own > 0)].mean() == pytest.approx(3.0, rel=1e-3)


def test_only_bert_gets_a_head(make_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="made for BERT"):
        splade_encoder(make_checkpoint("distilbert", dim=32, hidden_dim=64, n_layers=2, n_heads=4), 16)


def test_fused_pooling_has_the_values_and_gradients_of_the_plain_one(encoder: Any) -> None:
    encoder.train()

    def passed() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        encoder.zero_grad()
        found = encoder(encoder.preprocess(TEXTS))["sentence_embedding"]
        (found**2).sum().backward()
        return found.detach(), {name: weight.grad.clone() for name, weight in encoder.named_parameters()}

    plain, plain_gradients = passed()
    with fused(encoder):
        quick, quick_gradients = passed()
    torch.testing.assert_close(quick, plain, rtol=1e-5, atol=1e-5)
    assert (plain > 0).any()
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(quick_gradients[name], gradient, rtol=1e-3, atol=1e-3, msg=name)
    again, _ = passed()
    assert torch.equal(again, plain)  # the plain modules are back


# --- pairs -----------------------------------------------------------------------------------------


def test_a_set_is_read_with_all_its_splits_and_without_judgements_of_0(tmp_path: Path) -> None:
    data = read_training_set(write_set(tmp_path / "one", splits=("train", "validation")))
    assert data.name == "one"
    assert data.qrels == {f"q{i}": {f"d{i}": 1} for i in (*range(0, 12, 2), *range(1, 12, 2))}
    assert data.queries["q3"] == "the delta 3"
    assert data.documents["d3"] == "delta delta gamma old"


def test_negatives_are_near_and_never_relevant(tmp_path: Path) -> None:
    data = read_training_set(write_set(tmp_path / "one"))
    triplets = data.triplets(seed=0)
    assert [query for query, _, _ in triplets] == list(data.queries.values())
    for i, (query, positive, negative) in enumerate(triplets):
        assert positive == data.documents[f"d{i}"] != negative
        if i < 11:  # the last word occurs in one document only
            assert query.split()[1] in negative.split()
    assert triplets == data.triplets(seed=0)


def test_held_out_queries_share_nothing_with_training(tmp_path: Path) -> None:
    data = read_training_set(write_set(tmp_path / "one"))
    kept, held = hold_out(data, TINY)
    assert len(held.queries) == 2 and len(held.documents) == 4
    assert not kept.queries.keys() & held.queries.keys()
    relevant = {document for judged in held.qrels.values() for document in judged}
    assert relevant <= held.documents.keys() and not relevant & kept.documents.keys()
    assert len(kept.queries) == 10


def test_errors_name_the_folder_and_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no data set below"):
        read_training_sets(tmp_path)
    folder = write_set(tmp_path / "one")
    with (folder / "qrels" / "train.tsv").open("a") as qrels:
        qrels.write("q1\tnowhere\t1\n")
    with pytest.raises(FormatError, match=r"'nowhere'.*not in"):
        read_training_sets(tmp_path)
    (folder / "qrels" / "train.tsv").unlink()
    with pytest.raises(ConfigError, match="no qrels"):
        read_training_set(folder)


def test_effectiveness_is_that_of_the_run(tmp_path: Path) -> None:
    data = joined([read_training_set(write_set(tmp_path / name)) for name in ("one", "two")])
    assert data.documents["two/d3"] == "delta delta gamma old"
    hits = bm25_hits(data, 5)
    ids = list(data.documents)
    by_hand = {
        query: [(ids[row], float(score)) for row, score in zip(*line, strict=True) if row >= 0]
        for query, line in zip(data.queries, zip(hits.rows.tolist(), hits.scores, strict=True), strict=True)
    }
    assert effectiveness(data, hits) == measure(by_hand, data.qrels, METRICS)
    assert effectiveness(data, Hits.none(len(data.queries), 3))["nDCG@10"] == 0.0


# --- a run -----------------------------------------------------------------------------------------


def test_a_short_run_saves_an_encoder_that_loads(
    make_checkpoint: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate", reason="training needs accelerate and datasets")
    from sentence_transformers import SparseEncoder

    for name in ("one", "two"):
        write_set(tmp_path / "data" / name)
    recipe = Recipe(**(vars(TINY) | {"model": str(make_checkpoint())}))
    facts = train(tmp_path / "model", tmp_path / "data", recipe, steps=2, progress=Silent())
    output = capfd.readouterr()
    assert not output.out and not output.err

    loaded = SparseEncoder(str(tmp_path / "model"), device="cpu")
    assert loaded.encode(TEXTS).shape[1] == loaded[0].auto_model.config.vocab_size
    assert facts == json.loads((tmp_path / "model" / "recipe.json").read_text())
    assert facts["steps"] == 2 and facts["triplets"] == {"one": 10, "two": 10}
    assert facts["dev"]["queries"] == 4 and facts["dev"]["documents"] == 8
    assert facts["dev"]["pruned"]["document_terms"] > 0
    assert set(facts["data"]) == {
        f"{name}/{file}"
        for name in ("one", "two")
        for file in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv")
    }
    start = splade_encoder(make_checkpoint(), 16)[0].auto_model.bert.state_dict()
    trained = loaded[0].auto_model.bert.state_dict()
    assert any(not torch.equal(trained[name], start[name]) for name in start)


def test_steps_fill_the_time_without_touching_the_encoder(encoder: Any, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="training needs accelerate and datasets")
    triplets = {"one": read_training_set(write_set(tmp_path / "one")).triplets(0)}
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    assert steps_within(encoder, triplets, TINY, minutes=10.0) > 8
    assert all(torch.equal(weight, before[name]) for name, weight in encoder.state_dict().items())


def test_pruning_keeps_the_heaviest_terms(encoder: Any) -> None:
    before = encoder.encode(TEXTS).to_dense()
    amount = prune(encoder, TEXTS, 5)
    after = encoder.encode(TEXTS).to_dense()
    assert amount > 0
    assert torch.count_nonzero(after) == pytest.approx(5 * len(TEXTS), abs=1)  # ties in half precision
    torch.testing.assert_close(after, (before.expm1() - amount).relu().log1p(), rtol=1e-3, atol=0.02)
    assert prune(encoder, TEXTS, 1000) == 0.0


def test_training_lowers_the_loss(encoder: Any, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="training needs accelerate and datasets")
    texts = read_training_set(write_set(tmp_path / "one")).triplets(0)

    def loss() -> float:
        with torch.no_grad():
            queries, positives, negatives = (
                encoder.encode(list(column)).to_dense() for column in zip(*texts, strict=True)
            )
        scores = torch.stack([(queries * positives).sum(1), (queries * negatives).sum(1)], dim=1)
        return float(torch.nn.functional.cross_entropy(scores, torch.zeros(len(texts), dtype=torch.long)))

    before = loss()
    fit(encoder, {"one": texts}, Recipe(**(vars(TINY) | {"encoder_lr": 1e-3, "batch": 4})), steps=20)
    assert loss() < before


def test_the_command_wants_to_know_where_the_data_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TERCET_DATA", raising=False)
    result = CliRunner().invoke(command, ["-o", str(tmp_path)])
    assert isinstance(result.exception, ConfigError) and "--data" in str(result.exception)
