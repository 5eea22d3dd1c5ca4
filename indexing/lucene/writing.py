"""Writing one Lucene segment in row order, so that a document's number is its row."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from indexing.lucene.jvm import BUFFER_MB, java, lucene, session
from indexing.lucene.segment import FACTS, FIELD, open_directory
from indexing.lucene.tokens import DELIMITER, LONGEST_TOKEN

_OF_STREAM = "(Ljava/lang/String;{0}/analysis/TokenStream;{0}/index/IndexableFieldType;)V".format(
    "Lorg/apache/lucene"
)


def write_segment(
    folder: Path,
    batches: Iterable[Sequence[str]],
    *,
    norms: bool,
    memory_bytes: int,
    progress: Callable[[int], None],
) -> None:
    """Write one segment into an existing folder.

    Args:
        folder: where to.
        batches: the text of each row (``tokens.text_of``), some thousand rows at a time.
        norms: whether to keep the length of each row in one byte.
        memory_bytes: how much Lucene may buffer; it takes at least 16 MB and at most 256 MB.
        progress: called with the number of rows of each batch.

    Raises:
        MissingExtraError: the extra ``lucene`` is not installed.
        ConfigError: the Java machine does not start.
    """
    megabytes = float(min(max(memory_bytes >> 20, 16), BUFFER_MB))
    n = 0
    with session():
        writer = _Writer.open(folder, norms, megabytes)
    try:
        for texts in batches:
            with session():
                writer.add(texts)
            n += len(texts)
            progress(len(texts))
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    (folder / FACTS).write_text(json.dumps({"n": n, "files": sizes}, indent=1) + "\n", encoding="utf-8")


class _Writer(NamedTuple):
    """An open IndexWriter with the document that all rows are added through.

    Only merges of neighbours are allowed, which keep rows in order.
    """

    writer: Any
    scheduler: Any
    tokenizer: Any
    document: Any
    directory: Any

    @classmethod
    def open(cls, folder: Path, norms: bool, megabytes: float) -> _Writer:
        directory = open_directory(folder)
        scheduler = lucene("index.ConcurrentMergeScheduler")()
        merging = lucene("index.LogDocMergePolicy")()
        merging.setNoCFSRatio(1.0)  # few files
        config = lucene("index.IndexWriterConfig")()
        config.setMergePolicy(merging)
        config.setMergeScheduler(scheduler)
        config.setRAMBufferSizeMB(megabytes)
        tokenizer, document = row_document(norms)
        return cls(lucene("index.IndexWriter")(directory, config), scheduler, tokenizer, document, directory)

    def add(self, texts: Sequence[str]) -> None:
        reader = java("java.io.StringReader")
        for text in texts:
            self.tokenizer.setReader(reader(text))
            self.writer.addDocument(self.document)

    def finish(self) -> None:
        """Merge into one segment and close; while merges run, others may use Java."""
        with session():
            self.writer.forceMerge(1, False)
        while self._merging():
            time.sleep(0.01)
        with session():
            self.writer.forceMerge(1)
            self.writer.close()
            self.directory.close()

    def abandon(self) -> None:
        """Let go of the folder."""
        with session():
            self.writer.rollback()
            self.directory.close()

    def _merging(self) -> bool:
        with session():
            return bool(self.writer.hasPendingMerges()) or self.scheduler.mergeThreadCount() > 0


def row_document(norms: bool) -> tuple[Any, Any]:
    """A tokenizer and the document that is made of whatever text it is given."""
    kind = lucene("document.FieldType")()
    kind.setIndexOptions(lucene("index.IndexOptions").DOCS_AND_FREQS)
    kind.setOmitNorms(not norms)
    kind.freeze()
    tokenizer = lucene("analysis.core.WhitespaceTokenizer")(LONGEST_TOKEN)
    stream = lucene("analysis.miscellaneous.DelimitedTermFrequencyTokenFilter")(tokenizer, DELIMITER)
    document = lucene("document.Document")()
    document.add(lucene("document.Field")(FIELD, stream, kind, signature=_OF_STREAM))
    return tokenizer, document
