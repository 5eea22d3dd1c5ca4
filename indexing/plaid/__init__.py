"""Late interaction over compressed token vectors, found through their centroids (PLAID, WARP)."""
