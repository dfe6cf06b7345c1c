"""Write the made part of docs/methods.md, between its two marks, from the method table; `--check` only compares.

python scripts/methods_reference.py [--check]
"""

import sys
from pathlib import Path

from textlift.workflow.method_table import method_records, methods_markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"
BEGIN = "<!-- made by scripts/methods_reference.py: begin -->"
END = "<!-- made by scripts/methods_reference.py: end -->"


def page() -> str:
    """The whole page: what is written by hand as it stands, and the made part anew."""
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: must hold the marks {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n\n{methods_markdown(method_records())}\n\n{END}{after}"


def main() -> int:
    """Write the page, or with --check say whether it is current."""
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text(encoding="utf-8") == page() else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
