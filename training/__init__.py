"""Training sets, and the SPLADE head trained on them."""
