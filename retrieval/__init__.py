"""Value types, encoders, exact scoring, fusion, reranking and search composition."""
