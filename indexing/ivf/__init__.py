"""The index kind ``ivf``: any structure that FAISS's factory makes, with Matryoshka prefixes, re-scored exactly."""
