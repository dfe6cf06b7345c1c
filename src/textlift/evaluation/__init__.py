"""Scores, intervals, comparisons, baselines and the verdict; knows arrays and texts, not models or files."""
