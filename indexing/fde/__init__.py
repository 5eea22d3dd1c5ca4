"""Fixed dimensional encodings: late interaction found by a single vector for each text."""
