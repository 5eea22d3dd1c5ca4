"""What a collection may be asked to hold: names, kinds, indexes, collection.toml, sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexing.assembly import index_spec
from indexing.options import (
    BuildOptions,
    RepresentationOptions,
    check_distinct,
    encoder_spec,
    merge_representations,
    options_from_file,
    parse_memory,
    representation_options,
)
from retrieval.errors import ConfigError, FormatError

FLAT = index_spec("flat", {})
HNSW = index_spec("hnsw", {})
HASHING = encoder_spec("hashing:16")


def toml(folder: Path, text: str) -> Path:
    path = folder / "collection.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-x", ".hidden", "a/b", "a:b", "x+y", "a b", "a\t", "ü", "hybrid"]
)
def test_a_name_that_is_no_folder_or_means_something_else_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot name a representation"):
        RepresentationOptions(name, HASHING, (FLAT,))
    quoted = name.replace("\t", "\\t")
    with pytest.raises(FormatError, match=r"collection\.toml: .*cannot name a representation"):
        options_from_file(toml(tmp_path, f'["{quoted}"]\nencoder = "hashing:16"\n'))


@pytest.mark.parametrize("name", ["bm25", "dense", "my_model", "E5.large-v2", "_x", "7b", "hybrid2"])
def test_ordinary_names_are_fine(tmp_path, name):
    assert RepresentationOptions(name, HASHING, (FLAT,)).name == name
    (part,) = options_from_file(toml(tmp_path, f'["{name}"]\nencoder = "hashing:16"\n'))
    assert (part.name, part.indexes) == (name, (FLAT,))


@pytest.mark.parametrize("pair", [("dense", "dense-hnsw"), ("a", "a-lucene"), ("x", "x")])
def test_names_that_two_things_could_go_by_are_refused(pair):
    with pytest.raises(ConfigError, match="could both be meant by"):
        check_distinct(pair)
    with pytest.raises(ConfigError, match="could both be meant by"):
        BuildOptions(tuple(RepresentationOptions(name, HASHING, (FLAT,)) for name in pair))
    check_distinct(["dense", "dense2", "dense-large", "bm25"])


def test_indexes_of_one_representation_are_merged_in_order_and_repetitions_add_nothing():
    texts = ["bm25", "dense", "dense:hnsw", "dense", "bm25:bm25"]
    parts = merge_representations(
        representation_options(text, "hashing:16" if text.startswith("dense") else None) for text in texts
    )
    assert [(part.name, [spec.kind for spec in part.indexes]) for part in parts] == [
        ("bm25", ["bm25"]),
        ("dense", ["flat", "hnsw"]),
    ]


def test_parts_of_one_name_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="'dense' is given two encoders"):
        merge_representations(
            RepresentationOptions("dense", encoder_spec(f"hashing:{dim}"), (FLAT,)) for dim in (8, 16)
        )
    with pytest.raises(ConfigError, match="can have one hnsw index, not 2"):
        merge_representations(
            RepresentationOptions("dense", HASHING, (index_spec("hnsw", {"m": m}),)) for m in (8, 16)
        )
    with pytest.raises(ConfigError, match="at least one index"):
        RepresentationOptions("dense", HASHING, ())


@pytest.mark.parametrize(
    ("text", "kinds"), [("bm25:hnsw", "hnsw .*Dense.*Terms"), ("dense:bm25", "bm25 .*Terms.*Dense")]
)
def test_an_index_over_vectors_that_the_encoder_does_not_make_is_refused(text, kinds):
    with pytest.raises(ConfigError, match=kinds):
        representation_options(text, None if text.startswith("bm25") else "hashing:16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "klingon"}, "unknown language 'klingon'; valid: .*german"),
        ({"language": 5}, "unknown language 5"),
        ({"fields": ["body"]}, "unknown field 'body'"),
        ({"stemming": "none"}, "unknown option of the terms encoder 'stemming'"),
    ],
)
def test_wrong_options_of_bm25_are_named_before_anything_is_built(options, message):
    with pytest.raises(ConfigError, match=message):
        representation_options("bm25", options=options)


def test_a_collection_toml_says_what_a_collection_holds(tmp_path):
    path = toml(
        tmp_path,
        '[bm25]\noptions = { language = "german" }\n'
        '[wide]\nencoder = "hashing:128"\nindexes = [{}, { kind = "hnsw", m = 32 }]\n',
    )
    bm25, wide = options_from_file(path)
    assert bm25 == representation_options("bm25", options={"language": "german"})
    assert wide == RepresentationOptions(
        "wide", encoder_spec("hashing:128"), (FLAT, index_spec("hnsw", {"m": 32}))
    )


def test_a_table_called_late_has_token_vectors_of_the_default_model(tmp_path):
    (late,) = options_from_file(toml(tmp_path, '[late]\nindexes = [{}, { kind = "maxsim" }]\n'))
    assert late.encoder == {"family": "late", "model": "default", "options": {}}
    assert late.indexes == (*representation_options("late").indexes, index_spec("maxsim", {}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bm25 = 5", r"\[bm25\] is 5; it must be a table"),
        ("[dense]\nindexes = [5]", r"\[dense\] indexes holds 5; it must be a list of tables"),
        ('[dense]\nindexes = "flat"', r"\[dense\] indexes is 'flat'; it must be a list of tables"),
        ("[dense]\nindexes = [{ kind = 5 }]", r"\[dense\] indexes holds {'kind': 5}"),
        ("[dense]\nindexes = []", r"\[dense\] .*at least one index"),
        ("[dense]\noptions = 3", r"\[dense\] options is 3; it must be a table"),
        ("[dense]\nencoder = 5", r"\[dense\] encoder is 5; it must be a name in quotes"),
        ("[dense]\nindex = 5", r"\[dense\] unknown key 'index'; valid: encoder, indexes, options"),
        ('[dense]\nindexes = [{ kind = "tree" }]', r"\[dense\] unknown index kind 'tree'"),
        ('[dense]\nindexes = [{ kind = "hnsw", m = "x" }]', r"\[dense\] hnsw parameter m is 'x'"),
        ('[bm25]\noptions = { language = "klingon" }', r"\[bm25\] unknown language 'klingon'"),
        ("[dense", "not valid TOML"),
        ("[dense]\nname = '\udcff'", "not valid TOML"),
    ],
)
def test_a_wrong_collection_toml_names_file_table_and_key(tmp_path, text, message):
    path = tmp_path / "collection.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(FormatError, match=message) as caught:
        options_from_file(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("2GB", 2 * 10**9), (" 512m ", 512 * 10**6), ("1.5 K", 1500), ("7", 7)]
)
def test_sizes(text, n_bytes):
    assert parse_memory(text) == n_bytes


@pytest.mark.parametrize("text", ["lots", "", "-5", "0", "0GB", "0.4", "1.2.3", "5TB", "9" * 400])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match=r"--memory .*write it like 2GB"):
        parse_memory(text)
