"""What every loss promises; a new line of either table inherits these tests."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from retrieval.errors import ConfigError
from training.auxiliaries.table import AUXILIARIES, Sizes, open_auxiliary
from training.losses.table import LOSSES, open_loss
from training.scored import Scored

NAMES = [*LOSSES, *AUXILIARIES]
FURTHER: list[tuple[str, dict[str, Any]]] = [
    ("ranking", {"symmetric": True}),
    ("triplet", {"margin": 0.3}),
    ("triplet", {"distance": "cosine"}),
    ("distillation", {"normalise": "min-max", "student_temperature": 2}),
    ("flops", {"who": "queries", "threshold": 3}),
    ("domain", {"who": "queries", "schedule": False}),
]
CASES = [pytest.param(name, {}, id=name) for name in NAMES] + [
    pytest.param(name, options, id=f"{name}-{'-'.join(options)}") for name, options in FURTHER
]


@pytest.fixture
def scored(make_batch: Callable[..., Scored]) -> Scored:
    return make_batch()


@pytest.mark.parametrize("name", NAMES)
def test_takes_one_batch_and_named_options_and_says_its_source(name: str) -> None:
    module, _, attribute = (LOSSES | AUXILIARIES)[name].partition(":")
    loss = getattr(importlib.import_module(module), attribute)
    first, *others = inspect.signature(loss).parameters.values()
    assert first.name == ("sizes" if name in AUXILIARIES else "scored")
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in others)
    assert all(parameter.default is not parameter.empty for parameter in others)
    assert any(source in loss.__doc__ for source in ("arXiv", "SIGIR", "ICTIR"))


def test_the_tables_share_no_name() -> None:
    assert not LOSSES.keys() & AUXILIARIES.keys()


def test_unknown_losses_are_refused_with_both_tables() -> None:
    with pytest.raises(ConfigError, match=r"unknown loss 'rank'; valid: adversarial, .*domain.*ranking"):
        open_loss("rank")
    with pytest.raises(ConfigError, match="unknown auxiliary loss 'flops'; valid: domain, word-prediction"):
        open_auxiliary("flops", Sizes(1, 1, 1))


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused_with_the_valid_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown option of loss '{name}' 'heat'; valid: "):
        open_any_checked(name, {"heat": 1.0})


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("ranking", {"temperature": 0}, "'temperature' of loss 'ranking' is 0; it must be a number above 0"),
        ("ranking", {"temperature": "hot"}, "is 'hot'; it must be a number above 0"),
        ("ranking", {"temperature": True}, "is True; it must be a number above 0"),
        ("ranking", {"temperature": float("nan")}, "is nan; it must be a number above 0"),
        ("ranking", {"symmetric": 1}, "is 1; it must be true or false"),
        ("flops", {"threshold": 1.5}, "is 1.5; it must be a whole number at least 0"),
        ("flops", {"threshold": -1}, "is -1; it must be a whole number at least 0"),
        ("domain", {"hidden": 0}, "is 0; it must be a whole number at least 1"),
        ("flops", {"who": "both"}, "is 'both'; it must be one of 'queries', 'documents'"),
        ("df-flops", {"cutoff": 1.0}, "is 1.0; it must be a number above 0 and at most 0.5"),
        ("triplet", {"margin": -1}, "is -1; it must be a number above 0"),
        ("domain", {"strength": 0}, "is 0; it must be a number above 0"),
    ],
)
def test_impossible_values_are_refused_with_the_possible_ones(
    name: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        open_any_checked(name, options)
    assert told in str(refused.value)


def open_any_checked(name: str, options: dict[str, Any]) -> None:
    if name in LOSSES:
        open_loss(name, options)
    else:
        open_auxiliary(name, Sizes(2, 2, 2), options)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradients_are_those_of_differences(
    name: str, options: dict[str, Any], scored: Scored, open_any: Callable[..., Any]
) -> None:
    if name == "domain":
        pytest.skip("its gradient is reversed on purpose; test_auxiliaries.py compares it")
    loss = open_any(name, options)

    def of(queries: Tensor, documents: Tensor) -> Tensor:
        asked, found = queries.relu(), documents.relu()  # zeros stay zeros under a small step
        return loss(replace(scored, scores=asked @ found.T / 4, queries=(asked,), documents=(found,)))

    random = torch.Generator().manual_seed(5)
    leaves = [
        torch.randn(rows, 6, generator=random, dtype=torch.float64).add(0.7).requires_grad_()
        for rows in (4, 12)
    ]
    assert of(*leaves).shape == ()
    assert torch.autograd.gradcheck(of, leaves)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_order_of_a_batch_is_nothing(
    name: str,
    options: dict[str, Any],
    scored: Scored,
    open_any: Callable[..., Any],
    permuted: Callable[[Scored, Tensor], Scored],
) -> None:
    loss = open_any(name, options)
    other = permuted(scored, torch.tensor([2, 0, 3, 1]))
    torch.testing.assert_close(loss(other), loss(scored))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_gpu_computes_the_same(
    name: str, options: dict[str, Any], scored: Scored, open_any: Callable[..., Any]
) -> None:
    loss = open_any(name, options)
    expected = loss(scored)
    moved = {
        field.name: _on_gpu(getattr(scored, field.name)) for field in fields(scored) if field.name != "n"
    }
    if isinstance(loss, torch.nn.Module):
        loss.cuda()
    torch.testing.assert_close(loss(replace(scored, **moved)).cpu(), expected)


def _on_gpu(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(part.cuda() for part in value)
    return value.cuda() if isinstance(value, Tensor) else value


def test_reading_the_tables_needs_no_torch() -> None:
    code = "import sys, training.losses.table, training.auxiliaries.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def equal(scored: Scored) -> dict[str, Tensor]:
    return {"scores": torch.ones_like(scored.scores), "teacher": torch.ones_like(scored.own)}


def far(scored: Scored) -> dict[str, Tensor]:
    return {"scores": 1e4 * torch.randn_like(scored.scores), "teacher": 1e4 * torch.randn_like(scored.own)}


def negative(scored: Scored) -> dict[str, Tensor]:
    return {"scores": torch.full_like(scored.scores, -1e4), "teacher": torch.full_like(scored.own, -1e4)}


def cosine_of_one(scored: Scored) -> dict[str, Tensor]:
    return {"scores": torch.full_like(scored.scores, 1 + 1e-6), "teacher": torch.zeros_like(scored.own)}


@pytest.mark.parametrize("extreme", [equal, far, negative, cosine_of_one])
@pytest.mark.parametrize(("queries", "n"), [(4, 3), (4, 1), (1, 1)])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_loss_and_gradients_are_finite_on_extremes(
    name: str,
    options: dict[str, Any],
    queries: int,
    n: int,
    extreme: Callable[[Scored], dict[str, Tensor]],
    make_batch: Callable[..., Scored],
    open_any: Callable[..., Any],
) -> None:
    torch.manual_seed(0)
    plain = make_batch(queries, n, dtype=torch.float32)
    batch = replace(plain, **extreme(plain), teacher_batch=1e4 * torch.randn_like(plain.scores))
    leaves = [batch.scores, batch.queries[0].clone(), batch.documents[0].clone()]
    leaves[2][0] = 0  # a text without terms
    for leaf in leaves:
        leaf.requires_grad_()
    value = open_any(name, options, torch.float32)(
        replace(batch, queries=(leaves[1],), documents=(leaves[2],))
    )
    assert value.isfinite()
    value.backward()
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves)
    assert any(leaf.grad is not None for leaf in leaves)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_half_precision_is_widened_under_autocast(
    name: str, options: dict[str, Any], make_batch: Callable[..., Scored], open_any: Callable[..., Any]
) -> None:
    exact = make_batch(dtype=torch.float32)
    halves = replace(
        exact,
        scores=exact.scores.bfloat16(),
        queries=(exact.queries[0].bfloat16(),),
        documents=(exact.documents[0].bfloat16(),),
    )
    widened = replace(
        halves,
        scores=halves.scores.float(),
        queries=(halves.queries[0].float(),),
        documents=(halves.documents[0].float(),),
    )
    loss = open_any(name, options, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(halves)
    assert value.dtype == torch.float32
    tolerance = {"rtol": 2e-2, "atol": 0.0} if name in AUXILIARIES else {"rtol": 0.0, "atol": 0.0}
    torch.testing.assert_close(value, loss(widened), **tolerance)  # a module's own layers may be in bfloat16


@pytest.mark.parametrize(("name", "options"), CASES)
def test_teachers_get_no_gradient(
    name: str, options: dict[str, Any], scored: Scored, open_any: Callable[..., Any]
) -> None:
    taught = replace(
        scored,
        scores=scored.scores.clone().requires_grad_(),
        documents=(scored.documents[0].clone().requires_grad_(),),
        queries=(scored.queries[0].clone().requires_grad_(),),
        teacher=scored.own.clone().requires_grad_(),
        teacher_batch=scored.scores.clone().requires_grad_(),
        idf=torch.ones(6, dtype=torch.float64, requires_grad=True),
    )
    open_any(name, options)(taught).backward()
    for given in (taught.teacher, taught.teacher_batch, taught.idf):
        assert given is not None and (given.grad is None or not given.grad.any())


@pytest.mark.parametrize(
    ("name", "lacking", "told"),
    [
        (
            "distillation",
            {"teacher": None},
            r"distillation: this loss needs a teacher's scores .*\[\[teachers\]\]",
        ),
        (
            "tct",
            {"teacher_batch": None},
            "tct: this loss needs a teacher's scores of every document of the batch",
        ),
        ("idf-flops", {"idf": None}, "idf-flops: this loss needs a query weight for every term"),
        ("flops", {"documents": ()}, "flops: this loss needs one vector for each of the documents"),
        ("l1", {"queries": (torch.ones(4, 2, 3),)}, "l1: this loss needs one vector for each of the queries"),
    ],
)
def test_what_a_batch_lacks_is_named(name: str, lacking: dict[str, Any], told: str, scored: Scored) -> None:
    with pytest.raises(ConfigError, match=told):
        open_loss(name)(replace(scored, **lacking))
