"""Lucene as an index: kinds that keep a Lucene segment and let Lucene's own scorers search it (extra ``lucene``)."""
