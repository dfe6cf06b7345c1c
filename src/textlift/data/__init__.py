"""Labelled rows: read, checked, split."""

from textlift.data.checks import Evidence, find_problems, found_at, length_findings
from textlift.data.cleaning import cleaned, write_cleaned
from textlift.data.conflicts import conflict_rows, write_conflicts
from textlift.data.dataset import Dataset, Rows
from textlift.data.findings import Finding, raise_errors
from textlift.data.listing import write_listings
from textlift.data.reading import read_dataset
from textlift.data.relabelling import relabelled
from textlift.data.splits import cut_validation, prepare_splits
from textlift.data.texts import read_texts

__all__ = [
    "Dataset",
    "Evidence",
    "Finding",
    "Rows",
    "cleaned",
    "conflict_rows",
    "cut_validation",
    "find_problems",
    "found_at",
    "length_findings",
    "prepare_splits",
    "raise_errors",
    "read_dataset",
    "read_texts",
    "relabelled",
    "write_cleaned",
    "write_conflicts",
    "write_listings",
]
