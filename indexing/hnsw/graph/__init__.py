"""A navigable small-world graph over byte codes: its arrays, its builder and the walk that searches it."""
