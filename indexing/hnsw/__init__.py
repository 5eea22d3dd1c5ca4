"""Approximate dense search by navigable small-world graphs."""
