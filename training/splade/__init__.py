"""SPLADE: a masked-language head on a model that has none, pooling that is quick to train, tables for queries."""
