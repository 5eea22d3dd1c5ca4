"""From text to index terms: words, possessives, lower case, stop words, stems."""

from retrieval.analysis.analyzer import ENGLISH_STOP_WORDS, Analyzer

__all__ = ["ENGLISH_STOP_WORDS", "Analyzer"]
