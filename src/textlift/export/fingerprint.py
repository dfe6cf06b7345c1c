"""What a tokenizer does, in one short string: equal for copies of it, other for another of the same size.

It is taken from what the tokenizer answers, not from its files, which each version of the libraries writes otherwise.
"""

import hashlib
import json
from typing import Any

from textlift.runtime import quiet_libraries

# Upper case, accents (composed or not), white space, digits, signs, scripts: what normalizers and splitters differ in.
_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "MiXeD CaSe and ALL CAPS",
    "  leading,   inner\tand trailing\nspace  ",
    "caf\u00e9 cafe\u0301 na\u00efve \u00dcber stra\u00dfe \ufb01ne",
    "it's don't we'll 'quoted' \u201cquoted\u201d \u2014 and so on\u2026",
    "0 1 12 123 12345678 3.14 1,000 50% $9.99 #tag @name a_b c/d",
    "unbelievably internationalization xyzzyqwfp",
    "https://example.org/?q=a+b&c=d user@example.org",
    "\u4eca\u65e5\u306f\u826f\u3044 \ud55c\uad6d\uc5b4 \u4f60\u597d",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u0393\u03b5\u03b9\u03ac",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 :-) <b>&amp;</b>",
    "",
)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 over the vocabulary, the padding token, and the ids of fixed texts with their special tokens."""
    with quiet_libraries():
        ids = [
            tokenizer(text, add_special_tokens=True, truncation=False, padding=False)["input_ids"] for text in _TEXTS
        ]
    told = [sorted(tokenizer.get_vocab().items()), tokenizer.pad_token_id, ids]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
