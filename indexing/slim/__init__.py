"""SLIM: late interaction between sparse token vectors, found through an inverted index over one vector a text."""
