"""Queries by a tiny random GPT-2: reproducible, whatever the batches; prompts that fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from indexing.progress import Silent
from retrieval.errors import ConfigError
from retrieval.values import Document
from training.generation.generator import GeneratorOptions
from training.generation.local import LocalGenerator
from training.generation.prompts import Example, Prompt
from training.generation.seeded_sampling import LineEnd, SeededSampling

DOCUMENTS = [
    Document("a", "The river rises in the mountain."),
    Document("b", "An engine turns fuel into motion. The old engine was slow."),
    Document("c", "Cats sleep most of the day."),
    Document("d", "Green leaves make sugar of light, and a vector has a length."),
]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_DTYPE", "float32")
    monkeypatch.setenv("TERCET_DEVICE", "cpu")


@pytest.fixture(scope="module")
def model(tiny_lm) -> Path:
    return tiny_lm()


def opened(model: Path, **options: Any) -> LocalGenerator:
    given = {"model": str(model), "max_tokens": 10, "per_document": 2, "prompt": Prompt("Ask."), **options}
    return LocalGenerator.open(GeneratorOptions(**given), (), Silent())


def queries(generator: LocalGenerator, documents: list[Document]) -> dict[str, tuple[str, ...]]:
    return {one.document.id: one.queries for one in generator.generate(documents)}


def test_batches_and_order_change_nothing(model):
    whole = queries(opened(model, batch=4), DOCUMENTS)
    assert set(whole) == set("abcd") and all(len(found) == 2 for found in whole.values())
    assert len({text for found in whole.values() for text in found}) == 8
    assert queries(opened(model, batch=3), DOCUMENTS[::-1]) == whole
    assert queries(opened(model, batch=1), DOCUMENTS) == whole
    assert queries(opened(model, seed=1), DOCUMENTS) != whole


def test_temperature_0_is_greedy_decoding(model):
    generator = opened(model, temperature=0.0, per_document=1)
    (answer,) = generator.generate(DOCUMENTS[:1])
    ids = generator.tokenizer(generator.options.prompt.text(DOCUMENTS[0].text))["input_ids"]
    n_prompt, text = len(ids), ""
    while len(ids) < n_prompt + 10 and "\n" not in text.lstrip():
        with torch.inference_mode():
            ids.append(int(generator.model(torch.tensor([ids])).logits[0, -1].argmax()))
        text = generator.tokenizer.decode(ids[n_prompt:])
    assert answer.queries == (generator.options.prompt.query_of(text),)
    assert (answer.prompt_tokens, answer.completion_tokens) == (n_prompt, len(ids) - n_prompt)


def test_noise_makes_draws_from_the_softmax():
    logits, temperature, n = torch.tensor([1.0, 0.0, -1.0, 0.5, -torch.inf]), 0.7, 6000
    draws = SeededSampling(range(n), temperature, "cpu")(torch.zeros(n, 1), logits.repeat(n, 1)).argmax(dim=1)
    shares = torch.bincount(draws, minlength=5) / n
    expected = torch.softmax(logits / temperature, dim=0)
    assert shares[4] == 0
    assert torch.allclose(shares, expected, atol=4 * (expected * (1 - expected) / n).sqrt().max().item())


def test_rows_have_their_own_noise():
    logits = torch.zeros(2, 7)
    first = SeededSampling([3, 4], 1.0, "cpu")
    alone = SeededSampling([4], 1.0, "cpu")
    for _ in range(3):
        assert torch.equal(first(logits, logits)[1], alone(logits[:1], logits[:1])[0])


def test_a_line_end_ends_a_text_once_it_has_begun(model):
    tokenizer = opened(model).tokenizer
    rows = [tokenizer(text)["input_ids"] for text in ("x\n\n river", "x river\n", "x\n river", "x river")]
    width = max(map(len, rows))
    padded = torch.tensor([row + [tokenizer.eos_token_id] * (width - len(row)) for row in rows])
    assert LineEnd(tokenizer, 1)(padded, torch.zeros(4, 1)).tolist() == [False, True, False, False]


def test_a_chat_template_is_used_where_there_is_one(tiny_lm):
    prompt = Prompt("Ask.", (Example("Cats.", "cats"),))
    generator = opened(tiny_lm(TEMPLATE), prompt=prompt)
    (answer,) = generator.generate(DOCUMENTS[:1])
    said = f"<user>Ask.\n\nDocument: Cats.\n<assistant>cats\n<user>Document: {DOCUMENTS[0].text}\n<assistant>"
    assert answer.prompt_tokens == 2 * len(generator.tokenizer(said)["input_ids"])


def test_a_document_is_shown_as_far_as_it_fits(tiny_lm):
    generator = opened(tiny_lm(n_positions=64))
    long = Document("long", " ".join(one.text for one in DOCUMENTS) * 20)
    for document in (long, Document("unbroken", "x" * 5000), Document("surrogate", "river \ud800 " * 200)):
        (answer,) = generator.generate([document])
        assert len(answer.queries) == 2
        assert 20 < answer.prompt_tokens / 2 <= 54


def test_examples_that_fill_the_model_are_refused(tiny_lm):
    prompt = Prompt("Ask.", (Example("The river rises in the mountain. " * 9, "river"),) * 2)
    with pytest.raises(ConfigError, match=r"reads 54 tokens .*give fewer or shorter examples"):
        list(opened(tiny_lm(n_positions=64), prompt=prompt).generate(DOCUMENTS))


def test_a_model_that_is_none_is_refused(tmp_path):
    for model, message in (
        ("", "needs a model"),
        (str(tmp_path / "none"), "there is no such folder"),
        (str(tmp_path), "cannot load a causal language model"),
    ):
        with pytest.raises(ConfigError, match=message):
            LocalGenerator.open(GeneratorOptions(model=model), (), Silent())
