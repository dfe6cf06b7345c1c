"""`python -m textlift`."""

from textlift.cli import main

main()
