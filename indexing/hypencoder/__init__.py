"""Search among vectors by a small network that each query brings along."""
