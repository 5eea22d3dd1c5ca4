"""Anserini's JSON vectors and CIFF: round trips, an independent decoder, and damaged files."""

import gzip
import itertools
import json
import struct

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.exchange.anserini_vectors import read_vectors, write_vectors
from indexing.exchange.ciff import read_ciff, write_ciff
from indexing.exchange.impacts import impact_terms, quantise, sparse_of_terms
from indexing.exchange.postings import document_frequencies, postings_of
from indexing.exchange.protobuf import (
    DamagedMessageError,
    double_field,
    fields,
    number_field,
    read_varint,
    signed,
    string_field,
    varint,
)
from retrieval.encoders.terms import TermsEncoder
from retrieval.errors import ConfigError, FormatError, IncompatibleError
from retrieval.values import Document, Sparse, Strings, Terms

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VOCABULARIES = st.lists(TEXT, min_size=1, max_size=9, unique=True)


@st.composite
def term_rows(draw):
    """(ids, Terms) with any vocabulary, empty rows, and terms no row has."""
    words = draw(VOCABULARIES)
    row = st.dictionaries(st.integers(0, len(words) - 1), st.integers(1, 2**31 - 1), max_size=len(words))
    rows = draw(st.lists(row, max_size=20))
    lengths = draw(st.lists(st.integers(0, 2**31 - 1), min_size=len(rows), max_size=len(rows)))
    ids = draw(st.lists(TEXT, min_size=len(rows), max_size=len(rows)))
    return ids, make_terms(rows, words, lengths)


@st.composite
def sparse_rows(draw):
    """(ids, vocabulary, Sparse) with weights of any float32 from 0 up."""
    words = draw(VOCABULARIES)
    weight = st.floats(0, width=32, allow_nan=False, allow_infinity=False)
    rows = draw(st.lists(st.dictionaries(st.integers(0, len(words) - 1), weight), max_size=12))
    ids = draw(st.lists(TEXT.filter(bool), min_size=len(rows), max_size=len(rows), unique=True))
    return ids, words, make_sparse(rows, len(words))


def flat(rows, dtype):
    indptr = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    pairs = [(number, row[number]) for row in rows for number in sorted(row)]
    return indptr, np.array([p[0] for p in pairs], np.int32), np.array([p[1] for p in pairs], dtype)


def make_terms(rows, words, lengths=None):
    counted = [sum(row.values()) for row in rows] if lengths is None else lengths
    shaped = np.array(counted, dtype=np.int32).reshape(len(rows), 1)
    return Terms(*flat(rows, np.int32), shaped, Strings.of(words), np.zeros(len(words), np.uint8))


def make_sparse(rows, dim):
    return Sparse(*flat(rows, np.float32), dim)


def named_rows(value, words, numbers):
    """Each row as word -> number."""
    names = list(words)
    bounds = value.indptr.tolist()
    return [
        {names[i]: n for i, n in zip(value.indices[a:b].tolist(), numbers[a:b].tolist(), strict=True)}
        for a, b in itertools.pairwise(bounds)
    ]


# --- CIFF


@settings(max_examples=60)
@given(content=term_rows(), description=TEXT, memory=st.sampled_from([1, 200, 10**6]))
def test_ciff_reads_what_was_written(tmp_path_factory, content, description, memory):
    ids, terms = content
    path = tmp_path_factory.mktemp("ciff") / "index.ciff"
    write_ciff(path, ids, terms, description=description, memory_bytes=memory)
    found = read_ciff(path)
    assert (found.ids, found.description) == (ids, description)
    assert np.array_equal(found.terms.lengths, terms.lengths)
    assert named_rows(found.terms, found.terms.vocabulary, found.terms.frequencies) == named_rows(
        terms, terms.vocabulary, terms.frequencies
    )
    words = [word.encode() for word in found.terms.vocabulary]
    assert words == sorted(words)
    for low, high in itertools.pairwise(found.terms.indptr):
        assert (np.diff(found.terms.indices[low:high]) > 0).all()
    assert sorted(path.parent.iterdir()) == [path]


def test_ciff_is_the_format_that_was_published(tmp_path):
    """Bytes worked out by hand from the .proto of github.com/osirrc/ciff."""
    terms = make_terms([{1: 300}, {}, {0: 1, 1: 2}], ["b", "a"])
    write_ciff(tmp_path / "x", ["D0", "D1", "D2"], terms, description="hi")
    header = (
        bytes([8, 1, 16, 2, 24, 3, 32, 2, 40, 3, 48, 0xAF, 2, 57]) + struct.pack("<d", 101) + b"\x42\x02hi"
    )
    first = b"\x0a\x01a\x10\x02\x18\xae\x02" + b"\x22\x03\x10\xac\x02" + b"\x22\x04\x08\x02\x10\x02"
    second = b"\x0a\x01b\x10\x01\x18\x01" + b"\x22\x04\x08\x02\x10\x01"
    records = [b"\x12\x02D0\x18\xac\x02", b"\x08\x01\x12\x02D1", b"\x08\x02\x12\x02D2\x18\x03"]
    messages = [header, first, second, *records]
    assert (tmp_path / "x").read_bytes() == b"".join(bytes([len(message)]) + message for message in messages)


def test_protobuf_itself_reads_what_was_written(tmp_path):
    descriptors = pytest.importorskip("google.protobuf.descriptor_pb2", reason="protobuf is not installed")
    from google.protobuf import descriptor_pool, message_factory
    from google.protobuf.internal.decoder import _DecodeVarint32 as decode_varint

    file = descriptors.FileDescriptorProto(name="ciff.proto", package="ciff", syntax="proto3")
    shapes = {
        "Header": "version=5 num_postings_lists=5 num_docs=5 total_postings_lists=5 total_docs=5 "
        "total_terms_in_collection=3 average_doclength=1 description=9",
        "Posting": "docid=5 tf=5",
        "PostingsList": "term=9 df=3 cf=3 postings=11",
        "DocRecord": "docid=5 collection_docid=9 doclength=5",
    }
    for name, members in shapes.items():
        message = file.message_type.add(name=name)
        for number, member in enumerate(members.split(), 1):
            label, kind = member.split("=")
            many = label == "postings"
            field = message.field.add(name=label, number=number, type=int(kind), label=3 if many else 1)
            if many:
                field.type_name = ".ciff.Posting"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ciff.{name}")) for name in shapes
    }

    encoder = TermsEncoder()
    terms = encoder.encode_documents(
        [Document(str(n), f"word{n % 7} common word{n % 3}") for n in range(300)]
    )
    path = tmp_path / "index.ciff"
    write_ciff(path, [f"d{n}" for n in range(300)], terms)
    data, at = path.read_bytes(), 0
    messages = []
    while at < len(data):
        size, at = decode_varint(data, at)
        name = (
            "Header"
            if not messages
            else "PostingsList"
            if len(messages) <= messages[0].num_postings_lists
            else "DocRecord"
        )
        messages.append(made[name].FromString(data[at : at + size]))
        at += size
    header, lists = messages[0], messages[1 : 1 + messages[0].num_postings_lists]
    documents = messages[1 + len(lists) :]
    assert (header.version, header.num_docs, header.total_terms_in_collection) == (1, 300, 900)
    assert [document.collection_docid for document in documents] == [f"d{n}" for n in range(300)]
    rows = [{} for _ in range(300)]
    for postings in lists:
        assert postings.df == len(postings.postings)
        assert postings.cf == sum(posting.tf for posting in postings.postings)
        row = 0
        for posting in postings.postings:
            row += posting.docid
            rows[row][postings.term] = posting.tf
    assert rows == named_rows(terms, terms.vocabulary, terms.frequencies)
    rewritten = b"".join(varint(len(m.SerializeToString())) + m.SerializeToString() for m in messages)
    assert rewritten == data


def message(*parts):
    body = b"".join(parts)
    return varint(len(body)) + body


def posting(gap, tf):
    return string_field(4, number_field(1, gap) + number_field(2, tf))


def file_of(tmp_path, *messages):
    path = tmp_path / "x.ciff"
    path.write_bytes(b"".join(messages))
    return path


HEADER = message(number_field(1, 1), number_field(2, 1), number_field(3, 3))
RECORDS = b"".join(
    message(number_field(1, row), string_field(2, b"d%d" % row), number_field(3, 5)) for row in range(3)
)


def test_fields_in_any_order_and_unknown_ones_are_read(tmp_path):
    unknown = number_field(9, 5) + string_field(10, b"new") + double_field(11, 0.5) + b"\x65abcd"
    swapped = string_field(4, unknown + number_field(2, 7) + number_field(1, 2))
    lists = message(swapped, unknown, number_field(3, 7), string_field(1, b"t"), number_field(2, 1))
    found = read_ciff(file_of(tmp_path, HEADER, lists, RECORDS))
    assert named_rows(found.terms, found.terms.vocabulary, found.terms.frequencies) == [{}, {}, {"t": 7}]
    assert found.ids == ["d0", "d1", "d2"]


def test_a_compressed_file_is_read(tmp_path):
    path = tmp_path / "x.ciff.gz"
    path.write_bytes(
        gzip.compress(HEADER + message(string_field(1, b"t"), number_field(2, 1), posting(1, 4)) + RECORDS)
    )
    assert read_ciff(path).terms.indptr.tolist() == [0, 0, 1, 1]


LIST = (string_field(1, b"t"), number_field(2, 2))
FAULTS = {
    "not ciff": ([b"plain text, no index at all"], "byte 0: "),
    "empty": ([b""], "byte 0: the header expected, a number is cut off"),
    "version": ([message(number_field(1, 7))], "version 7"),
    "negative": ([message(number_field(1, 1), number_field(2, -1))], "announces -1 postings lists"),
    "no list": ([HEADER], r"byte 7: postings list 0 expected, a number is cut off"),
    "cut list": (
        [HEADER, message(*LIST, posting(0, 1), posting(1, 1))[:-3]],
        "byte 7: postings list 0 is cut off",
    ),
    "few": ([HEADER, message(*LIST, posting(0, 1)), RECORDS], "'t', has 1 postings, its df says 2"),
    "gap": ([HEADER, message(*LIST, posting(1, 1), posting(0, 1)), RECORDS], "byte 19: .*do not ascend"),
    "back": ([HEADER, message(*LIST, posting(1, 1), posting(-1, 1)), RECORDS], "do not ascend"),
    "beyond": (
        [HEADER, message(*LIST, posting(1, 1), posting(2, 1)), RECORDS],
        "that the header does not announce",
    ),
    "wrapped": ([HEADER, message(*LIST, posting(1, 1), posting(2**63 - 1, 1)), RECORDS], "does not announce"),
    "zero": ([HEADER, message(*LIST, posting(0, 1), posting(1, 0)), RECORDS], "a frequency is not from 1"),
    "minus": ([HEADER, message(*LIST, posting(0, -5), posting(1, 1)), RECORDS], "a frequency is not from 1"),
    "wire": ([HEADER, message(*LIST, b"\x23"), RECORDS], "unknown wire type"),
    "field cut": ([HEADER, message(*LIST, b"\x22\x09\x10\x01"), RECORDS], "a field is cut off"),
    "posting cut": ([HEADER, message(*LIST, b"\x22\x02\x10\x80"), RECORDS], "a field is cut off"),
    "utf-8": (
        [HEADER, message(string_field(1, b"\xff"), number_field(2, 0)), RECORDS],
        "the term is no valid UTF-8",
    ),
    "same": (
        [HEADER, message(*LIST, posting(0, 1), posting(1, 1)), RECORDS[:9], RECORDS[:9]],
        "document 1 has the number 0",
    ),
    "records": (
        [HEADER, message(*LIST, posting(0, 1), posting(1, 1)), RECORDS[:-1]],
        "document 2 is cut off",
    ),
    "more": (
        [HEADER, message(*LIST, posting(0, 1), posting(1, 1)), RECORDS, b"\0"],
        "more after the last document",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_ciff_is_refused_with_the_place(tmp_path, fault):
    content, expected = FAULTS[fault]
    if fault == "same":
        content = [HEADER, content[1], message(string_field(2, b"a")), message(string_field(2, b"b"))]
    path = file_of(tmp_path, *content)
    with pytest.raises(FormatError, match=expected) as caught:
        read_ciff(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_term_may_have_one_list_only(tmp_path):
    header = message(number_field(1, 1), number_field(2, 2), number_field(3, 3))
    lists = message(string_field(1, b"t"), number_field(2, 1), posting(1, 1))
    with pytest.raises(FormatError, match="the term 't' has a postings list already"):
        read_ciff(file_of(tmp_path, header, lists, lists, RECORDS))


@settings(max_examples=150)
@given(cut=st.integers(0, 10**6), flipped=st.integers(0, 10**6), bit=st.integers(0, 7), data=term_rows())
def test_any_damage_is_a_format_error_or_harmless(tmp_path_factory, cut, flipped, bit, data):
    path = tmp_path_factory.mktemp("damaged") / "x.ciff"
    write_ciff(path, *data, description="description")
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    with pytest.raises(FormatError):
        read_ciff(path)
    changed = bytearray(whole)
    changed[flipped % len(whole)] ^= 1 << bit
    path.write_bytes(changed)
    try:
        read_ciff(path)
    except FormatError as error:
        assert str(path) in str(error)


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    path, terms = tmp_path / "x.ciff", make_terms([{0: 1}, {0: 1}], ["a"])
    path.write_bytes(b"before")
    with pytest.raises(ValueError):
        write_ciff(path, ["one id"], terms)
    with pytest.raises(FormatError, match="lone surrogate"):
        write_ciff(path, ["fine", "\ud800"], terms)
    with pytest.raises(FormatError, match="lone surrogate"):
        write_ciff(path, ["a", "b"], make_terms([{0: 1}, {}], ["\udfff"]))
    two = TermsEncoder.open("", {"fields": ["title", "text"]}).encode_documents([Document("1", "a", "b")])
    with pytest.raises(IncompatibleError, match="one field"):
        write_ciff(path, ["a"], two)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


@pytest.mark.parametrize("memory", [1, 4_000, 10**9])
def test_postings_are_the_same_with_any_memory(memory):
    encoder = TermsEncoder()
    words = [f"word{number}" for number in range(40)]
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(words, rng.integers(0, 15))) for _ in range(200)]
    terms = encoder.encode_documents([Document(str(n), text) for n, text in enumerate(texts)])
    counts = document_frequencies(terms)
    order = rng.permutation(len(terms.vocabulary)).tolist()
    found = list(postings_of(terms, order, counts, memory))
    assert [term for term, _, _ in found] == order
    rows = np.repeat(np.arange(200), np.diff(terms.indptr))
    for term, own_rows, frequencies in found:
        assert own_rows.tolist() == rows[terms.indices == term].tolist()
        assert frequencies.tolist() == terms.frequencies[terms.indices == term].tolist()
        assert len(own_rows) == counts[term]


# --- the wire format


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_survive(value):
    encoded = varint(value)
    assert len(encoded) <= 10
    decoded, end = read_varint(b"\x01" + encoded + b"\x7f", 1)
    assert (signed(decoded), end) == (value, 1 + len(encoded))


@given(st.binary(max_size=40))
def test_any_bytes_are_fields_or_damaged(data):
    try:
        assert all(wire in (0, 1, 2, 5) for _, wire, _ in fields(data))
    except DamagedMessageError as error:
        assert 0 <= error.at <= len(data)


# --- impacts


@given(sparse_rows(), st.floats(0.01, 3))
def test_impacts_come_back_within_half_a_step(content, scale):
    _, words, vectors = content
    small = Sparse(
        vectors.indptr, vectors.indices, np.fmod(vectors.values, np.float32(254 * scale)), vectors.dim
    )
    terms = impact_terms(small, Strings.of(words), scale)
    back = named_rows(sparse_of_terms(terms, scale), words, sparse_of_terms(terms, scale).values)
    for row, (weights, found) in enumerate(zip(named_rows(small, words, small.values), back, strict=True)):
        assert found.keys() == {word for word, weight in weights.items() if weight > 0}
        assert terms.lengths[row, 0] == terms.frequencies[terms.indptr[row] : terms.indptr[row + 1]].sum()
        for word, weight in found.items():
            away = abs(weight - weights[word])
            assert away <= (scale if weights[word] < scale else scale / 2) * (1 + 1e-5)


def test_weights_beyond_eight_bits_are_refused():
    assert quantise(np.array([0, 1e-9, 1, 5.1], np.float32), 0.02).tolist() == [0, 1, 50, 255]
    with pytest.raises(ConfigError, match=r"up to weights of 5\.1; there is one of 5\.2.* at least 0\.0204"):
        quantise(np.array([5.2], np.float32), 0.02)


# --- Anserini's JSON vectors


@settings(max_examples=60)
@given(sparse_rows())
def test_vectors_read_what_was_written(tmp_path_factory, content):
    ids, words, vectors = content
    path = tmp_path_factory.mktemp("vectors") / "vectors.jsonl"
    write_vectors(path, ids, vectors, Strings.of(words))
    found = read_vectors(path)
    assert found.ids == ids
    assert found.vectors.dim == len(found.vocabulary)
    assert named_rows(found.vectors, found.vocabulary, found.vectors.values) == named_rows(
        vectors, words, vectors.values
    )
    for low, high in itertools.pairwise(found.vectors.indptr):
        assert (np.diff(found.vectors.indices[low:high]) > 0).all()


def test_lines_are_those_that_anserini_indexes(tmp_path):
    vectors = make_sparse([{0: 0.5, 1: 1.0}, {}], 2)
    path = tmp_path / "v.jsonl"
    write_vectors(path, ["a", "b"], vectors, Strings.of(["x", "y"]), contents=["text of a", ""], scale=0.01)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {"id": "a", "contents": "text of a", "vector": {"x": 50, "y": 100}}
    assert all(type(weight) is int for weight in first["vector"].values())
    assert second == {"id": "b", "contents": "", "vector": {}}


def test_several_files_share_a_vocabulary(tmp_path):
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl.gz"
    one.write_bytes(b'\xef\xbb\xbf{"id": "a", "contents": "", "vector": {"x": 1, "y": 2.5}}\n\n')
    two.write_bytes(gzip.compress(b'{"id": "b", "vector": {"z": 1, "y": 3}}'))
    found = read_vectors(one, two)
    assert (found.ids, list(found.vocabulary)) == (["a", "b"], ["x", "y", "z"])
    assert found.vectors.indices.tolist() == [0, 1, 1, 2]
    assert found.vectors.values.tolist() == [1, 2.5, 3, 1]


def test_no_rows_are_ordinary(tmp_path):
    write_vectors(tmp_path / "v", [], make_sparse([], 0), Strings.of([]))
    assert len(read_vectors(tmp_path / "v").vectors) == 0
    write_ciff(tmp_path / "c", [], make_terms([], []))
    assert len(read_ciff(tmp_path / "c").terms) == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"vector": {}}', '"id" is None'),
        ('{"id": 7, "vector": {}}', '"id" is 7'),
        ('{"id": "", "vector": {}}', "\"id\" is ''"),
        ('{"id": "a", "vector": {}}', "the id 'a' is at .*v.jsonl:1 already"),
        ('{"id": "b"}', '"vector" must be an object'),
        ('{"id": "b", "vector": [1]}', '"vector" must be an object'),
        ('{"id": "b", "vector": {"x": -0.1}}', r"weight of 'x' is -0\.1"),
        ('{"id": "b", "vector": {"x": NaN}}', "not valid JSON"),
        ('{"id": "b", "vector": {"x": 1e39}}', "weight of 'x' is 1e"),
        ('{"id": "b", "vector": {"x": 1e999}}', "weight of 'x'|not valid JSON"),
        ('{"id": "b", "vector": {"x": true}}', "weight of 'x' is True"),
        ('{"id": "b", "vector": {"x": "1"}}', "weight of 'x' is '1'"),
        ('{"id": "b", "vector": {"x": null}}', "weight of 'x' is None"),
    ],
)
def test_damaged_vectors_are_refused_with_file_and_line(tmp_path, line, expected):
    path = tmp_path / "v.jsonl"
    path.write_text('{"id": "a", "vector": {"x": 1}}\n\n' + line + "\n")
    with pytest.raises(FormatError, match=expected) as caught:
        read_vectors(path)
    assert str(caught.value).startswith(f"{path}:3: ")


def test_vectors_that_cannot_be_exchanged_are_not_written(tmp_path):
    path, words = tmp_path / "v.jsonl", Strings.of(["x"])
    for weight in (-1.0, np.nan, np.inf):
        with pytest.raises(FormatError, match="row 1 has the weight"):
            write_vectors(path, ["a", "b"], make_sparse([{0: 1.0}, {0: weight}], 1), words)
    with pytest.raises(ConfigError, match="take a scale of at least"):
        write_vectors(path, ["a"], make_sparse([{0: 300.0}], 1), words, scale=1.0)
    with pytest.raises(ValueError, match="1 terms for vectors of 2"):
        write_vectors(path, ["a"], make_sparse([{0: 1.0}], 2), words)
    with pytest.raises(ValueError):
        write_vectors(path, ["a", "b"], make_sparse([{0: 1.0}], 1), words)
    with pytest.raises(orjson.JSONEncodeError):
        write_vectors(path, ["\ud800"], make_sparse([{0: 1.0}], 1), words)
    assert list(tmp_path.iterdir()) == []
