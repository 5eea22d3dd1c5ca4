"""Fitting a book of codes: what sparse vectors of words and codes need to know, learnt from documents alone."""
