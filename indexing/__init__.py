"""Index structures, the collection on disk and its builders."""
