"""The outward face: the HTTP API, the search page and the `tercet` command."""
