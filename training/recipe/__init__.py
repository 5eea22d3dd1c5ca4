"""What decides how a model is trained: one TOML file, read into one frozen value."""
