"""New commits that cannot be read: the old one stays in service, and the log says so once."""

from __future__ import annotations

import logging

import pytest

from retrieval.errors import CorruptError
from retrieval.values import Document


@pytest.fixture
def breakable(collection):
    """The fake collection; while ``broken`` is set, opening a commit raises it."""
    plain = collection.snapshot
    collection.broken = None

    def snapshot():
        if collection.broken is not None:
            raise collection.broken
        return plain()

    collection.snapshot = snapshot
    return collection


@pytest.mark.parametrize(
    "error", [CorruptError("segment/ids.npy", "cut short"), OSError(5, "input/output error")]
)
def test_an_unreadable_commit_is_logged_once_in_one_line_and_the_old_one_served(
    breakable, make_client, caplog, error
):
    client = make_client()
    breakable.broken = error
    breakable.add(Document("new", "Zebras graze.", "Zebras"))
    for _ in range(3):
        assert client.get("/v1/documents/new").status_code == 404
        assert client.search(query="cats")
    assert client.get("/readyz").status_code == 200
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert record.exc_info is None
    assert "\n" not in record.getMessage()
    assert str(error) in record.getMessage()

    breakable.add(Document("newer", "Gnus graze.", "Gnus"))
    client.search(query="cats")
    client.search(query="cats")
    assert len(caplog.records) == 2, "another commit is told of again"
    breakable.broken = None
    assert client.get("/v1/documents/newer").status_code == 200
