"""What a model is trained on: queries, documents and which belong together, from files to batches of texts."""
