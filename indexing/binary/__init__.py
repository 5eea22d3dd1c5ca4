"""The index kind ``binary``: one bit a dimension compared with all rows, the best candidates re-scored exactly."""
