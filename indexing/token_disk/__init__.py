"""Token vectors that stay on disk: rows read past the page cache, ahead of their use, under a budget (ESPN)."""
