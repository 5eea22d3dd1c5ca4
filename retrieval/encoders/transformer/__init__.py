"""Transformer checkpoints in the sentence-transformers format, run directly where their kind is known."""
