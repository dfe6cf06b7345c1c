"""Scripts and languages of texts: which rows are written in another than most are.

The language of a text in Latin letters is told by function words: three different ones of one language, a fifth of all
its words and twice as many as of any other; a text that does not say so counts for none. Knows those of WORDS alone.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from textlift.data.dataset import Dataset
from textlift.data.findings import Finding, Listing, Severity, percent

_ENGLISH = (
    "the and of to is that it was for with this you are have not but they his from what been would their i a in on my "
    "me we be or at an as by if no so do can will up out just like about when who all there one has had her she him he "
    "our your them more some than its into only over also how did get got don man die den was men see son car pro con "
    "come made sale fast war hat bad gut rot name even most do am pm us go too are ate data ten sin red real dare pot"
)
# Function words of other languages that are no English words.
_OTHERS = {
    "German": "der das und ist nicht ich ein eine mit sich auf für dem auch wie wird bei sind noch wir aber wenn oder",
    "French": "le les et est des une que pas dans pour qui sur avec ce vous je mais nous cette sont être été très",
    "Spanish": "el los las es una que por como pero más del lo muy está su al este todo también para cuando porque",
    "Portuguese": "os é um uma que não com mas mais da em ao muito foi isso você são também seu para porque quando",
    "Italian": "il gli è una che di per ma più della del sono anche questo nel alla ho molto perché quando non",
    "Dutch": "het een van ik dat niet op te zijn met voor maar ook aan er wat bij heb naar nog deze waar wordt",
    "Swedish": "och att det som på är av med inte har jag till ett om var från så kan när också mycket eller",
    "Danish": "og det er på til af med ikke har jeg som et var fra så kan når også meget eller hvor ved",
    "Polish": "na nie się jest że jak po co tak za od ja czy przez tylko już może dla ale ze być",
    "Turkish": "ve bir bu için çok ne ama ile var gibi daha olan kadar değil ben sen mi en her şey",
    "Finnish": "ja ei se että oli hän mutta ovat kun niin myös olla tämä jos minä sitä vain kuin mitä",
    "Indonesian": "yang dan di ini itu dengan untuk tidak dari pada akan ke saya ada juga kami adalah dalam karena",
    "Romanian": "și în nu cu este că pe un mai din sunt ce pentru care dar ca fi acest foarte după",
    "Czech": "na je že ale jako po si tak jsem které která jsou není nebo být jen když pro už bylo",
}
WORDS: Mapping[str, frozenset[str]] = {
    "English": frozenset(_ENGLISH.split()),
    **{name: frozenset(words.split()) - frozenset(_ENGLISH.split()) for name, words in _OTHERS.items()},
}
_BY_WORD: dict[str, tuple[str, ...]] = {
    word: tuple(name for name, words in WORDS.items() if word in words)
    for word in {word for words in WORDS.values() for word in words}
}
_LEAST_HITS, _LEAST_PART, _CLEAR = 3, 0.2, 2.0  # different words, of all words, over the next language
_SAMPLE = 20_000  # rows of a split that are looked at
_FIRST = 1_000  # characters of a text that are looked at
_LEAST_SHARE, _LEAST_ROWS, _MANY = 0.005, 5, 0.05

# First code point of a block of letters and its script.
_BLOCKS: Sequence[tuple[int, str]] = (
    (0x0041, "Latin"), (0x0370, "Greek"), (0x0400, "Cyrillic"), (0x0530, "Armenian"), (0x0590, "Hebrew"),
    (0x0600, "Arabic"), (0x0780, "other"), (0x0900, "Devanagari"), (0x0980, "Bengali"), (0x0A00, "Indic"),
    (0x0E00, "Thai"), (0x0E80, "other"), (0x10A0, "Georgian"), (0x1100, "Hangul"), (0x1200, "other"),
    (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, "other"), (0x3040, "Japanese"), (0x3100, "Han"),
    (0x3130, "Hangul"), (0x3190, "other"), (0x3400, "Han"), (0xA000, "other"), (0xAC00, "Hangul"), (0xD7B0, "other"),
    (0xF900, "Han"), (0xFB00, "Latin"), (0xFB1D, "Hebrew"), (0xFB50, "Arabic"), (0xFE00, "other"),
    (0xFF66, "Japanese"), (0xFFA0, "other"), (0x20000, "Han"), (0x30000, "other"),
)  # fmt: skip
_STARTS = [start for start, _ in _BLOCKS]


def script_of(text: str) -> str:
    """The script of most letters of a text, "" where it has none."""
    if text.isascii():
        return "Latin" if any(character.isalpha() for character in text) else ""
    scripts = Counter(
        _BLOCKS[max(0, bisect_right(_STARTS, ord(character)) - 1)][1] for character in text if character.isalpha()
    )
    scripts.pop("other", None)
    if scripts["Japanese"]:  # written with Han as well
        return "Japanese"
    return max(scripts, key=lambda name: scripts[name], default="")


def language_of(text: str) -> str:
    """The language of a text by its function words, "" where they do not say."""
    words = {word.strip(".,;:!?\"'()") for word in text.casefold().split()}
    hits: Counter[str] = Counter()
    for word in words:
        hits.update(_BY_WORD.get(word, ()))
    if not hits:
        return ""
    (first, most), *others = hits.most_common(2)
    second = others[0][1] if others else 0
    is_clear = most >= _LEAST_HITS and most >= _LEAST_PART * len(words) and most >= _CLEAR * second
    return first if is_clear else ""


def script_findings(dataset: Dataset) -> list[Finding]:
    """Rows in another script than most."""
    return _found(dataset, script_of, code="other_script", what="script")


def language_findings(dataset: Dataset) -> list[Finding]:
    """Rows in another language than most."""
    return _found(dataset, language_of, code="other_language", what="language")


def _found(dataset: Dataset, name_of: Callable[[str], str], *, code: str, what: str) -> list[Finding]:
    looked = {
        split: np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(int)).tolist()
        for split, rows in dataset.splits.items()
    }
    names = {
        split: [name_of(dataset.splits[split].texts[place][:_FIRST]) for place in places]
        for split, places in looked.items()
    }
    counts = Counter(name for found in names.values() for name in found if name)
    if len(counts) < 2:
        return []
    usual = counts.most_common(1)[0][0]
    strange = {
        split: [place for place, name in zip(looked[split], found, strict=True) if name not in {"", usual}]
        for split, found in names.items()
    }
    shares = {split: len(strange[split]) / max(1, sum(map(bool, found))) for split, found in names.items()}
    count = sum(map(len, strange.values()))
    if count < _LEAST_ROWS or max(shares.values()) < _LEAST_SHARE:
        return []
    others = ", ".join(f"{name} {n:,}" for name, n in counts.most_common(6)[1:])
    told = "; ".join(f"{split} {len(found):,} ({percent(shares[split])})" for split, found in strange.items())
    is_cut = any(len(rows) > _SAMPLE for rows in dataset.splits.values())
    sampled = f" At most {_SAMPLE:,} rows of a split were looked at." if is_cut else ""
    message = f"rows in another {what} than {usual}, which most are in: {told}: {others}.{sampled}"
    columns = {
        what: [name for found in names.values() for name in found if name not in {"", usual}],
    }
    parts = tuple((split, dataset.splits[split].take(places)) for split, places in strange.items() if places)
    severity: Severity = "warning" if max(shares.values()) >= _MANY else "info"
    details = {f"{split}_share": share for split, share in shares.items()}
    return [Finding(code, severity, message, None, count, (), details, listing=Listing(parts, columns))]
