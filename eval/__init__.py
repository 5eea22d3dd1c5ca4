"""Metrics, BEIR collections, run files, significance and speed reports."""
