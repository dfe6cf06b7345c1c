"""Trained variants in the ecosystem's own formats: written, merged, loaded back and compared."""
