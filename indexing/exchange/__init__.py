"""Vectors and postings in the formats of other search engines: Anserini's JSON vectors, and CIFF."""
