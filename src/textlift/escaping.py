"""Strings of others made safe for the place that shows them: terminal, Markdown, CSV, JSON.

Knows nothing of the rest of the package. What goes into HTML is made visible here and escaped by its template.
"""

import json
import re
import unicodedata

# Joiners of emoji, Persian and Indic scripts: invisible, but the words are wrong without them.
JOINERS = "\u200c\u200d"
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MAX_MARKS = 4

# Cells begin at the start of the text and, for a program that takes another delimiter, inside of it; a smile is none.
_FORMULA = re.compile(r"(^|[;\t\r\n])((?:[^\S\t\r\n]|[\"'])*)(?=[=+\-@\uff0b\uff0d\uff1d\uff20](?!\)))|^(?=[\t\r\n])")
# What a terminal obeys or a reader of lines breaks at; JSON itself asks only for those below U+0020.
_RAW_IN_JSON = re.compile(
    "[\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str, *, keep: str = "") -> str:
    r"""Foreign text with control, bidirectional and other invisible characters shown as codes such as \u202e.

    So are combining marks after the fourth in a row: stacked, they would be drawn over the lines above and below.

    Args:
        text: Of anybody.
        keep: Characters that stay as they are, such as the line feed.
    """
    if text.isascii() and text.isprintable():
        return text
    shown, marks = [], 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        is_hidden = character not in JOINERS and (category in _INVISIBLE or marks > _MAX_MARKS)
        if character in keep or not is_hidden:
            shown.append(character)
        else:
            shown.append("\\n" if character == "\n" else _code(character))
    return "".join(shown)


def _code(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def escape_markdown(text: str) -> str:
    """Foreign text that Markdown shows as written: no markup, no HTML, no table cell and no link out of it."""
    escaped = re.sub(r"([\\`*_\[\]|~$#@{}!])", r"\\\1", visible(text))
    escaped = re.sub(r"(?i)\b(www)\.", r"\1\\.", escaped.replace("://", r"\://"))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def csv_cell(text: str) -> str:
    """Foreign text for a table that people open in a spreadsheet: shown there as text, never run as a formula.

    An apostrophe stands before what could be read as a formula, also after a semicolon, tab or line break, which a
    program set to another delimiter takes for the start of a cell. Control characters are shown as codes.

    Source:
        OWASP, CSV Injection.
    """
    return _FORMULA.sub(r"\1'\2", visible(text, keep="\t\r\n"))


def json_text(value: object, *, indent: int | None = None) -> str:
    """A value as JSON in readable UTF-8, on one line unless indented, safe to print and to split into lines.

    Raises:
        ValueError: It holds a number that is not finite.
    """
    written = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return _RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", written)
