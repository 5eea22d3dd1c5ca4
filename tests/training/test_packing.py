"""Packs: small forms of trained models."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from retrieval.encoders.transformer.location import locate
from retrieval.encoders.transformer.packed import FACTS, TENSORS, factored, product, unpack, write_tensors
from retrieval.errors import ConfigError, CorruptError
from training.packing import pack


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folders(tmp_path):
    """A base, and a model trained from it: a low-rank update, a changed bias, a new head, settings of its own."""
    rng = np.random.default_rng(0)
    base, trained = tmp_path / "base", tmp_path / "trained"
    (trained / "1_Head").mkdir(parents=True)
    base.mkdir()
    original = {
        "encoder.weight": rng.standard_normal((40, 30)).astype(np.float32),
        "encoder.bias": rng.standard_normal(40).astype(np.float32),
        "words": rng.standard_normal((100, 30)).astype(np.float32),
    }
    save_file(original, base / "model.safetensors")
    (base / "tokenizer.json").write_text("{}")
    update = rng.standard_normal((40, 4)) @ rng.standard_normal((4, 30)) * 0.01
    changed = {
        "bert.encoder.weight": original["encoder.weight"] + update.astype(np.float32),
        "bert.encoder.bias": original["encoder.bias"] + np.float32(0.5),
        "bert.words": original["words"],
    }
    save_file(changed, trained / "model.safetensors")
    save_file(
        {"weight": rng.standard_normal((8, 30)).astype(np.float32)}, trained / "1_Head" / "model.safetensors"
    )
    (trained / "tokenizer.json").write_text("{}")
    (trained / "config.json").write_text('{"a": 1}')
    (trained / "README.md").write_text("about")
    return base, trained


def test_an_unpacked_model_is_the_trained_one(folders, tmp_path):
    base, trained = folders
    missed = pack(trained, base, tmp_path / "small", rank=4)
    whole = unpack(tmp_path / "small", base)
    assert missed.keys() == {"model.safetensors:bert.encoder.weight"}
    assert max(missed.values()) < 1e-3
    found, expected = load_file(whole / "model.safetensors"), load_file(trained / "model.safetensors")
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["bert.words"], expected["bert.words"])
    np.testing.assert_allclose(found["bert.encoder.weight"], expected["bert.encoder.weight"], atol=1e-4)
    np.testing.assert_allclose(found["bert.encoder.bias"], expected["bert.encoder.bias"], rtol=1e-3)
    head = load_file(whole / "1_Head" / "model.safetensors")["weight"]
    np.testing.assert_allclose(head, load_file(trained / "1_Head" / "model.safetensors")["weight"], rtol=1e-3)
    assert (whole / "config.json").read_text() == '{"a": 1}'
    assert (whole / "tokenizer.json").read_text() == "{}"
    assert not (whole / "README.md").exists()


def test_only_changes_are_stored(folders, tmp_path):
    base, trained = folders
    pack(trained, base, tmp_path / "small", rank=4)
    stored = load_file(tmp_path / "small" / TENSORS)
    weights = "model.safetensors:bert.encoder"
    assert stored.keys() == {
        f"{weights}.weight:left",
        f"{weights}.weight:right",
        f"{weights}.bias",
        "1_Head/model.safetensors:weight",
    }
    assert stored[f"{weights}.weight:left"].dtype == np.int16


def test_a_lower_rank_says_what_it_misses(folders, tmp_path):
    base, trained = folders
    full = pack(trained, base, tmp_path / "full", rank=4)
    half = pack(trained, base, tmp_path / "half", rank=2)
    (name,) = full
    change = (
        load_file(trained / "model.safetensors")["bert.encoder.weight"]
        - load_file(base / "model.safetensors")["encoder.weight"]
    )
    strengths = np.linalg.svd(change, compute_uv=False)
    assert half[name] == pytest.approx(np.linalg.norm(strengths[2:]) / np.linalg.norm(strengths), rel=1e-3)


def test_a_pack_is_put_together_once_and_the_same_everywhere(folders, tmp_path, monkeypatch):
    base, trained = folders
    pack(trained, base, tmp_path / "small", rank=4)
    first = unpack(tmp_path / "small", base)
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert unpack(tmp_path / "small", base) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    second = unpack(tmp_path / "small", base)
    assert second != first
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert not [path for path in second.parent.iterdir() if path.name.startswith(".")]


def test_factors_multiply_exactly_in_any_order():
    rng = np.random.default_rng(1)
    left, right, scale = factored(rng.standard_normal((64, 500)), 16)
    shuffled = rng.permutation(16)
    np.testing.assert_array_equal(
        product(left, right, scale), product(left[:, shuffled], right[shuffled], scale)
    )
    assert factored(np.zeros((3, 4)), 2)[0].any() == np.False_


def test_tensors_are_written_as_safetensors(tmp_path):
    tensors = {
        "b": np.arange(6, dtype=np.int16).reshape(2, 3),
        "a": np.ones(3, np.float32),
        "c": np.zeros((0, 2), np.float16),
    }
    write_tensors(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_another_base_is_refused(folders, tmp_path):
    base, trained = folders
    pack(trained, base, tmp_path / "small", rank=4)
    other = shutil.copytree(base, tmp_path / "other")
    save_file({"x": np.ones(1, np.float32)}, other / "model.safetensors")
    with pytest.raises(ConfigError, match="update of another model"):
        unpack(tmp_path / "small", other)
    with pytest.raises(ConfigError, match=r"no model\.safetensors"):
        pack(trained, tmp_path, tmp_path / "small")


def test_damage_is_named(folders, tmp_path):
    base, trained = folders
    small = tmp_path / "small"
    pack(trained, base, small, rank=4)
    kept = (small / FACTS).read_text()
    (small / FACTS).write_text(kept[:50])
    with pytest.raises(CorruptError, match="not the description of a pack"):
        unpack(small, base)
    facts = json.loads(kept)
    facts["weights"]["model.safetensors"]["bert.words"] = {}
    (small / FACTS).write_text(json.dumps(facts))
    with pytest.raises(CorruptError, match="there is no tensor"):
        unpack(small, base)
    (small / FACTS).write_text(kept)
    whole = (small / TENSORS).read_bytes()
    for damaged in (whole[:-10], whole[:-1] + bytes([whole[-1] ^ 1])):
        (small / TENSORS).write_bytes(damaged)
        with pytest.raises(CorruptError, match=r"not the file that pack\.json describes"):
            unpack(small, base)
    (small / TENSORS).unlink()
    with pytest.raises(CorruptError, match="missing"):
        unpack(small, base)


def test_a_folder_with_a_pack_of_the_default_model_is_a_model(tmp_path):
    base = locate("default")
    trained = shutil.copytree(base, tmp_path / "trained")
    tensors = load_file(trained / "model.safetensors")
    tensors["pooler.dense.bias"] = tensors["pooler.dense.bias"] + np.float32(1)
    save_file(tensors, trained / "model.safetensors")
    pack(trained, base, tmp_path / "small")
    assert sum(path.stat().st_size for path in (tmp_path / "small").iterdir()) < 100_000
    found = locate(str(tmp_path / "small"))
    np.testing.assert_allclose(
        load_file(found / "model.safetensors")["pooler.dense.bias"], tensors["pooler.dense.bias"], rtol=1e-3
    )
