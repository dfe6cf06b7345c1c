"""Base models: found, checked, loaded, and read in the terms of their family."""
