"""Scores, wrapped as `evaluate` modules."""
