"""The value types: what they accept, and that saving, slicing and joining lose nothing."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrieval.bitmap import Bitmap
from retrieval.errors import CorruptError
from retrieval.values import Dense, Document, Hits, MultiSparse, MultiVector, Sparse, Strings, Terms

floats = st.sampled_from([np.float32, np.float16])


@st.composite
def dense(draw):
    shape = (draw(st.integers(0, 9)), draw(st.integers(1, 5)))
    elements = st.floats(-100, 100, width=16)
    return Dense(draw(hnp.arrays(draw(floats), shape, elements=elements)))


def indptr_of(counts):
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@st.composite
def sparse(draw, dim=7):
    rows = draw(st.lists(st.sets(st.integers(0, dim - 1)), max_size=8))
    indices = np.array([term for row in rows for term in sorted(row)], dtype=np.int32)
    values = draw(hnp.arrays(np.float32, len(indices), elements=st.floats(-9, 9, width=32)))
    return Sparse(indptr_of([len(row) for row in rows]), indices, values, dim)


@st.composite
def multivector(draw):
    counts = draw(st.lists(st.integers(0, 4), max_size=6))
    elements = st.floats(-100, 100, width=16)
    return MultiVector(indptr_of(counts), draw(hnp.arrays(draw(floats), (sum(counts), 3), elements=elements)))


@st.composite
def multisparse(draw):
    tokens = draw(sparse())
    cuts = sorted(draw(st.lists(st.integers(0, len(tokens)), max_size=5)))
    return MultiSparse(np.array([0, *cuts, len(tokens)], dtype=np.int64), tokens)


@st.composite
def terms(draw):
    vocabulary = draw(st.lists(st.text(max_size=5), min_size=1, max_size=6))
    fields = draw(st.sampled_from([("contents",), ("title", "text")]))
    rows = draw(st.lists(st.sets(st.integers(0, len(vocabulary) - 1)), max_size=6))
    indices = np.array([term for row in rows for term in sorted(row)], dtype=np.int32)
    n = len(indices)
    return Terms(
        indptr_of([len(row) for row in rows]),
        indices,
        draw(hnp.arrays(np.int32, n, elements=st.integers(1, 50))),
        draw(hnp.arrays(np.int32, (len(rows), len(fields)), elements=st.integers(0, 99))),
        Strings.of(vocabulary),
        draw(hnp.arrays(np.uint8, len(vocabulary), elements=st.integers(0, len(fields) - 1))),
        fields,
    )


@st.composite
def hits(draw, k=3, snapshot="s"):
    n = draw(st.integers(0, 5))
    rows = draw(hnp.arrays(np.int64, (n, k), elements=st.integers(-1, 50)))
    return Hits(rows, draw(hnp.arrays(np.float32, (n, k), elements=st.floats(-9, 9, width=32))), snapshot)


vectors = st.one_of(dense(), sparse(), multivector(), multisparse(), terms())


def contents(value):
    """Everything a value holds, comparable with ==."""

    def comparable(part):
        if isinstance(part, np.ndarray):
            return part.dtype.str, part.shape, part.tolist()
        if isinstance(part, Strings):
            return list(part)
        return contents(part) if isinstance(part, Sparse) else part

    return {name: comparable(part) for name, part in vars(value).items()}


@settings(max_examples=60)
@given(vectors)
def test_what_is_saved_is_what_is_loaded(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("value")
    value.save(folder)
    assert contents(type(value).load(folder)) == contents(value)


@given(dense() | sparse() | multivector() | multisparse(), st.data())
def test_slices_joined_again_are_the_whole(value, data):
    cut = data.draw(st.integers(0, len(value)))
    assert contents(type(value).concat([value[:cut], value[cut:]])) == contents(value)


@given(hits(), st.data())
def test_hits_sliced_and_joined_are_the_whole(value, data):
    cut = data.draw(st.integers(0, len(value)))
    assert contents(Hits.concat([value[:cut], value[cut:]])) == contents(value)


@given(vectors, st.data())
def test_a_slice_of_rows_is_the_same_as_taking_them_one_by_one(value, data):
    start = data.draw(st.integers(0, len(value)))
    stop = data.draw(st.integers(start, len(value)))
    part, taken = value[start:stop], value.take(np.arange(start, stop))
    assert len(part) == stop - start
    assert contents(part) == contents(taken)


@given(vectors, st.data())
def test_taking_rows_keeps_their_order_and_repeats(value, data):
    rows = data.draw(st.lists(st.integers(0, len(value) - 1), max_size=5)) if len(value) else []
    taken = value.take(np.array(rows, dtype=np.int64))
    assert len(taken) == len(rows)
    for place, row in enumerate(rows):
        assert contents(taken[place : place + 1]) == contents(value[row : row + 1])


def test_slicing_past_either_end_gives_nothing_rather_than_an_error():
    value = Dense(np.ones((3, 2), dtype=np.float32))
    ragged = MultiVector(indptr_of([1, 2]), np.ones((3, 2), dtype=np.float32))
    assert len(value[5:9]) == len(ragged[5:9]) == len(ragged[2:1]) == 0


@pytest.mark.parametrize("step", [2, -1])
def test_ragged_values_refuse_a_slice_with_a_step(step):
    ragged = MultiVector(indptr_of([1, 2]), np.ones((3, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="step 1"):
        ragged[::step]
    with pytest.raises(ValueError, match="step 1"):
        Strings.of(["a", "b"])[::step]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dense(np.ones((2, 3))),
        lambda: Dense(np.ones(3, dtype=np.float32)),
        lambda: MultiVector(indptr_of([2]), np.ones((3, 2), dtype=np.float32)),
        lambda: MultiVector(indptr_of([3]), np.ones((3, 2))),
        lambda: Sparse(indptr_of([2]), np.ones(1, np.int32), np.ones(1, np.float32), 3),
        lambda: Sparse(indptr_of([1]), np.ones(1, np.int64), np.ones(1, np.float32), 3),
        lambda: MultiSparse(indptr_of([2]), sparse_of(3)),
        lambda: MultiSparse(indptr_of([1]).astype(np.int32), sparse_of(3)),
        lambda: MultiSparse.concat([MultiSparse(indptr_of([1]), sparse_of(dim)) for dim in (3, 4)]),
        lambda: terms_of(lengths=(2, 1)),
        lambda: terms_of(frequencies=(2,)),
        lambda: terms_of(fields=(2,)),
        lambda: Sparse.concat([sparse_of(3), sparse_of(4)]),
        lambda: Hits(np.zeros((1, 2), np.int64), np.zeros((1, 3), np.float32)),
        lambda: Hits(np.zeros((1, 2), np.int64), np.zeros((1, 2))),
        lambda: Hits(np.zeros(2, np.int64), np.zeros(2, np.float32)),
        lambda: Hits.concat([Hits.none(1, 2, "a"), Hits.none(1, 2, "b")]),
        lambda: Bitmap(np.zeros(1, dtype=np.uint8), 9),
        lambda: Bitmap.full(5) & Bitmap.full(7),
        lambda: Bitmap.full(5) | Bitmap.full(7),
    ],
)
def test_impossible_values_are_refused_at_construction(make):
    with pytest.raises(ValueError):
        make()


def terms_of(lengths=(1, 1), frequencies=(1,), fields=(1,)):
    ones = np.ones(1, np.int32)
    return Terms(
        indptr_of([1]),
        ones,
        np.ones(frequencies, np.int32),
        np.ones(lengths, np.int32),
        Strings.of("a"),
        np.zeros(fields, np.uint8),
    )


def sparse_of(dim):
    return Sparse(indptr_of([1]), np.zeros(1, np.int32), np.ones(1, np.float32), dim)


def test_loaded_arrays_are_memory_mapped(tmp_path):
    Dense(np.ones((4, 3), dtype=np.float32)).save(tmp_path)
    assert isinstance(Dense.load(tmp_path).values, np.memmap)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "values.npy").unlink(),
        lambda folder: (folder / "value.json").unlink(),
        lambda folder: (folder / "value.json").write_text("{"),
        lambda folder: (folder / "value.json").write_text("[]"),
        lambda folder: (folder / "value.json").write_text('{"value": "dense"}'),
        lambda folder: (folder / "value.json").write_text('{"value": "dense", "arrays": []}'),
        lambda folder: (folder / "value.json").write_text('{"value": "dense", "arrays": 3}'),
        lambda folder: (folder / "value.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "values.npy").write_bytes((folder / "values.npy").read_bytes()[:-1]),
        lambda folder: (folder / "values.npy").write_bytes((folder / "values.npy").read_bytes()[:20]),
        lambda folder: (folder / "values.npy").write_bytes(b""),
        lambda folder: (folder / "values.npy").write_bytes(b"not an array"),
        lambda folder: np.save(folder / "values.npy", np.ones((4, 3))),
        lambda folder: np.save(folder / "values.npy", np.ones(4, dtype=np.float32)),
    ],
)
def test_a_damaged_folder_raises_corrupt_error_naming_a_file(tmp_path, damage):
    Dense(np.ones((4, 3), dtype=np.float32)).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(CorruptError, match=r"value(s\.npy|\.json)"):
        Dense.load(tmp_path)


@pytest.mark.parametrize("kind", [Sparse, MultiVector, MultiSparse, Terms])
def test_another_type_of_value_is_not_loaded(tmp_path, kind):
    Dense(np.ones((4, 3), dtype=np.float32)).save(tmp_path)
    with pytest.raises(CorruptError, match="holds 'dense'"):
        kind.load(tmp_path)


def test_value_json_names_the_type_and_the_arrays(tmp_path):
    sparse_of(4).save(tmp_path)
    facts = json.loads((tmp_path / "value.json").read_text())
    assert facts == {"value": "sparse", "dim": 4, "arrays": ["indices", "indptr", "values"]}


@pytest.mark.parametrize("name", ["indptr", "token_indptr", "indices", "values"])
def test_multisparse_names_the_file_that_is_damaged(tmp_path, name):
    MultiSparse(indptr_of([1]), sparse_of(4)).save(tmp_path)
    path = tmp_path / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptError, match=name):
        MultiSparse.load(tmp_path)


@pytest.mark.parametrize("name", ["indptr", "token_indptr"])
def test_multisparse_of_arrays_that_do_not_belong_together_is_corrupt(tmp_path, name):
    MultiSparse(indptr_of([1]), sparse_of(4)).save(tmp_path)
    np.save(tmp_path / f"{name}.npy", indptr_of([5]))
    with pytest.raises(CorruptError, match=r"value\.json"):
        MultiSparse.load(tmp_path)


# --- strings

texts = st.lists(st.text(st.characters(codec=None), max_size=4), max_size=8)


@given(texts)
def test_strings_come_back_as_they_went_in_surrogates_included(strings):
    packed = Strings.of(strings)
    assert list(packed) == [packed[i] for i in range(len(packed))] == packed.take(range(len(strings)))
    assert list(packed) == strings


@given(texts, texts, st.data())
def test_strings_slice_and_join_like_lists(left, right, data):
    joined = Strings.concat([Strings.of(left), Strings.of(right)])
    assert list(joined) == left + right
    start, stop = (data.draw(st.integers(-9, 20)) for _ in "ab")
    assert list(joined[start:stop]) == (left + right)[start:stop]


def test_strings_are_indexed_from_the_end_too_and_no_further():
    packed = Strings.of(["a", "bc"])
    assert packed[-1] == "bc"
    for index in (2, -3):
        with pytest.raises(IndexError):
            packed[index]
    assert list(Strings.concat([])) == []


# --- hits and documents


def test_cutting_hits_narrows_or_pads():
    hits = Hits(np.array([[3, 1]]), np.array([[2, 1]], dtype=np.float32), "s")
    assert hits.cut(1).rows.tolist() == [[3]]
    wide = hits.cut(3)
    assert wide.rows.tolist() == [[3, 1, -1]]
    assert wide.scores.tolist() == [[2, 1, -np.inf]]
    assert (wide.k, wide.snapshot, len(wide)) == (3, "s", 1)


def test_contents_of_a_document_start_with_its_title():
    assert Document("1", "text", "Title").contents() == "Title text"
    assert Document("1", "text").contents() == "text"


# --- bitmaps

masks = hnp.arrays(np.bool_, st.integers(0, 70))


@given(masks)
def test_a_bitmap_is_its_mask(mask):
    bitmap = Bitmap.from_mask(mask)
    assert bitmap.mask().tolist() == mask.tolist()
    assert bitmap.rows().tolist() == np.flatnonzero(mask).tolist()
    assert bitmap.count() == mask.sum()
    assert [row in bitmap for row in range(len(mask))] == mask.tolist()
    assert (~bitmap).mask().tolist() == (~mask).tolist()
    assert Bitmap.from_rows(np.flatnonzero(mask), len(mask)).bits.tolist() == bitmap.bits.tolist()
    assert Bitmap.from_rows(iter(np.flatnonzero(mask).tolist()), len(mask)).count() == bitmap.count()


@given(masks, st.data())
def test_a_slice_of_a_bitmap_is_the_slice_of_its_mask(mask, data):
    start = data.draw(st.integers(0, len(mask)))
    stop = data.draw(st.integers(start, len(mask)))
    part = Bitmap.from_mask(mask).slice(start, stop)
    assert part.mask().tolist() == mask[start:stop].tolist()
    assert part.count() == mask[start:stop].sum()


@given(masks, st.data())
def test_bitmaps_meet_and_join_as_masks_do(mask, data):
    other = data.draw(hnp.arrays(np.bool_, len(mask)))
    left, right = Bitmap.from_mask(mask), Bitmap.from_mask(other)
    assert (left & right).mask().tolist() == (mask & other).tolist()
    assert (left | right).mask().tolist() == (mask | other).tolist()


@pytest.mark.parametrize("n", [0, 1, 8, 13])
def test_full_and_empty_bitmaps_leave_the_bits_past_the_end_zero(n):
    assert Bitmap.full(n).count() == n
    assert (~Bitmap.empty(n)).count() == n
    assert Bitmap.empty(n).count() == 0


def test_bits_lie_little_endian_as_faiss_wants_them():
    assert Bitmap.from_rows([0, 9], 16).bits.tolist() == [1, 2]
