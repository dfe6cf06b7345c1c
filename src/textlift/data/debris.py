"""What web pages and wrong encodings leave in texts: markup, entities, misread characters, links. Repairs on request.

A pattern is only looked for in texts that hold a character it cannot do without.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from html.entities import name2codepoint

from textlift.data.dataset import Dataset
from textlift.data.findings import MOST_ROWS, Finding, Listing, Severity, percent

_TAGS = "a|abbr|b|blockquote|body|br|center|code|div|em|font|form|h[1-6]|head|hr|html|i|iframe|img|input|li|link|meta"
_TAGS += "|ol|option|p|pre|s|script|section|select|small|span|strike|strong|style|sub|sup|table|tbody|td|th|title|tr"
_TAGS += "|tt|u|ul|video"
_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_ENTITY = re.compile(rf"&(?:(?:{'|'.join(sorted(name2codepoint))});|#[0-9]{{1,7}};|#[xX][0-9a-fA-F]{{1,6}};)")
_REMNANT = re.compile(r"\b(?:a href|img src|div class|span class)\b", re.IGNORECASE)
# What a byte of UTF-8 becomes where it is read as Latin-1 or as code page 1252.
_CP1252 = {
    bytes([byte]).decode("cp1252"): byte for byte in range(0x80, 0xA0) if byte not in {0x81, 0x8D, 0x8F, 0x90, 0x9D}
}
_TAIL = "\x80-\xbf" + re.escape("".join(_CP1252))
_MISREAD = re.compile(rf"[\xc2-\xdf][{_TAIL}]|[\xe0-\xef][{_TAIL}]{{2}}|[\xf0-\xf4][{_TAIL}]{{3}}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[nrt](?=[\sA-Z\\]|$))")
_LINK = re.compile(r"https?://|\bwww\.\w", re.IGNORECASE)
_COMMON_LINKS = 0.01  # share of rows with links below which they are not worth a line


@dataclass(frozen=True)
class Debris:
    """One kind of debris."""

    code: str
    what: str
    is_in: Callable[[str], bool]
    why: str
    repair: Callable[[str], str] | None = None
    is_broken: bool = False  # the writer's characters are lost or false: a warning however few
    least_share: float = 0.0


def misread_utf8(text: str) -> bool:
    """Whether bytes of UTF-8 stand in the text that were read one by one: "donâ€™t"."""
    return not text.isascii() and any(_reread(found[0]) is not None for found in _MISREAD.finditer(text))


def reread_utf8(text: str) -> str:
    """The text with its misread characters read as UTF-8."""
    return _MISREAD.sub(lambda found: _reread(found[0]) or found[0], text)


def _reread(piece: str) -> str | None:
    data = bytes(_CP1252.get(character, ord(character) & 0xFF) for character in piece)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _decoded(text: str) -> str:
    return _ENTITY.sub(lambda found: html.unescape(found[0]).replace("\xa0", " "), text)


KINDS: tuple[Debris, ...] = (
    Debris(
        "html_tags",
        "HTML tags",
        lambda text: "<" in text and ">" in text and _TAG.search(text) is not None,
        "Tags cost tokens, and tell a model of the page instead of the words.",
        lambda text: " ".join(_TAG.sub(" ", text).split(" ")),
    ),
    Debris(
        "html_entities",
        "HTML entities (&amp;)",
        lambda text: "&" in text and _ENTITY.search(text) is not None,
        "An entity is read as other words than the character that it stands for.",
        _decoded,
    ),
    Debris(
        "html_remnants",
        "remnants of HTML without its brackets (a href http)",
        lambda text: (" href" in text or " src" in text or " class" in text) and _REMNANT.search(text) is not None,
        "They are words that no person wrote.",
    ),
    Debris(
        "misread_utf8",
        "UTF-8 that was read as another encoding",
        misread_utf8,
        "A misread character is noise to the model; where one split alone has it, it tells the split.",
        reread_utf8,
        is_broken=True,
    ),
    Debris(
        "replacement_characters",
        "replacement characters (U+FFFD)",
        lambda text: "\ufffd" in text,
        "What stood there is lost; only the source still has it.",
        is_broken=True,
    ),
    Debris(
        "control_characters",
        "control characters",
        lambda text: not text.isprintable() and _CONTROL.search(text) is not None and not misread_utf8(text),
        "They are punctuation of another encoding, or damage; a tokenizer drops them or reads them as unknown.",
        lambda text: _CONTROL.sub(lambda found: _from_cp1252(found[0]), text),
        is_broken=True,
    ),
    Debris(
        "escape_sequences",
        "escape sequences as text (\\n, \\u2019)",
        lambda text: "\\" in text and _ESCAPE.search(text) is not None,
        "They were to be characters and are read as letters.",
    ),
    Debris(
        "links",
        "links",
        lambda text: ("://" in text or "www." in text.casefold()) and _LINK.search(text) is not None,
        "A link costs tokens and says little; the comparison of texts leaves it out.",
        least_share=_COMMON_LINKS,
    ),
)


def debris_findings(dataset: Dataset) -> list[Finding]:
    """One finding for each kind of debris, over all splits.

    Characters that are lost or false are a warning, the rest is one where it stands in 1 % of the rows of a split.
    """
    places: dict[str, dict[str, list[int]]] = {kind.code: {split: [] for split in dataset.splits} for kind in KINDS}
    for split, rows in dataset.splits.items():
        lists = [(kind.is_in, places[kind.code][split].append) for kind in KINDS]
        for place, text in enumerate(rows.texts):
            if text.isalnum():
                continue
            for is_in, note in lists:
                if is_in(text):
                    note(place)
    return [found for kind in KINDS if (found := _finding(dataset, kind, places[kind.code])) is not None]


def _finding(dataset: Dataset, kind: Debris, places: dict[str, list[int]]) -> Finding | None:
    shares = {split: len(found) / max(1, len(dataset.splits[split])) for split, found in places.items()}
    count = sum(map(len, places.values()))
    if not count or max(shares.values()) < kind.least_share:
        return None
    told = "; ".join(
        f"{split} {len(found):,} of {len(dataset.splits[split]):,} ({percent(shares[split])})"
        for split, found in places.items()
    )
    here = [split for split, found in places.items() if found]
    parts = tuple((split, dataset.splits[split].take(places[split])) for split in here)
    advice = (
        "check --fix DIR writes a copy that is repaired." if kind.repair else "Look at the rows; nothing repairs them."
    )
    severity: Severity = "warning" if kind.is_broken or max(shares.values()) >= 0.01 else "info"
    if kind.code == "links":
        severity, advice = "info", "Nothing needs to be done."
    return Finding(
        kind.code,
        severity,
        f"rows with {kind.what}: {told}.",
        here[0] if len(dataset.splits) == 1 else None,
        count,
        tuple(parts[0][1].row_numbers[:MOST_ROWS]) if len(here) == 1 else (),
        {f"{split}_share": share for split, share in shares.items()},
        why=kind.why,
        advice=advice,
        listing=Listing(parts),
    )


def _from_cp1252(character: str) -> str:
    """What a control character of Latin-1 is in code page 1252, or a space."""
    try:
        return bytes([ord(character)]).decode("cp1252") if "\x80" <= character <= "\x9f" else " "
    except UnicodeDecodeError:
        return " "
