"""Ways to tune a few weights of a base model; METHODS in registry.py is the one table."""
