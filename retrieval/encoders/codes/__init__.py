"""Sparse vectors of words and codes: an inverted index over what a model means that has no masked-language head."""
