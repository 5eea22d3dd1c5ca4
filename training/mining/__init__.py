"""Searching a training set's documents, and the negatives found there."""
