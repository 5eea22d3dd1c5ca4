"""BM25 over analysed terms."""
