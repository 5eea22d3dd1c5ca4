"""The kinds of models that can be trained, each behind the same protocol."""
