"""Dense vectors: exact search, its devices, and what is known about them."""
