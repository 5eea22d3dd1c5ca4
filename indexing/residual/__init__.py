"""Token vectors stored as a centroid and a few bits a dimension (ColBERTv2's residual compression)."""
