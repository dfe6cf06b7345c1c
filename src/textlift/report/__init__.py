"""The report of a run: tables for terminal, Markdown and notebook, plots, and one self-contained page.

Everything is built by pure functions from plain dicts (results.json and the histories); this room knows no
recipe, no model and no run directory.
"""
