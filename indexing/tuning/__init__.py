"""Choosing an index by measurement: `tercet tune`; `tuning.tune` is where to start reading."""
