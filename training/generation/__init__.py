"""Queries made of documents, to train on where there are none: by language models, or of the documents' own words."""
