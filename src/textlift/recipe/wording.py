"""What is wrong with the values of a recipe, in words: a sentence for each value, all in one line."""

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from textlift.errors import nearest

_MOST_TOLD = 6  # complaints told in full; of the others the keys are


def complaints(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """What pydantic found, one sentence for each value: key, what must hold, what was found, the nearest key."""
    return list(told_by_key(error, model, prefix).values())


def in_one_line(told: Mapping[str, str], source: str) -> str:
    """All complaints in one sentence: the first six in full, of the others the keys."""
    sentences, keys = list(told.values()), [shortened(key or "the recipe") for key in told]
    full, rest = "; ".join(sentences[:_MOST_TOLD]), keys[_MOST_TOLD:]
    names = ", ".join(rest[:30]) + (", ..." if len(rest) > 30 else "")
    more = f"; and {len(rest)} more: {names}" if rest else ""
    sentence = f"{shortened(source)}: {len(told)} value{'s' * (len(told) != 1)} cannot be used: {full}{more}"
    return sentence if sentence.endswith("?") else f"{sentence}."


def told_by_key(error: ValidationError, model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """A sentence for each value that pydantic refused; the choices of a union make one."""
    held: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        if item["type"] != "extra_forbidden" and len(path) > 1 and _NOT_A_KEY.fullmatch(path[-1]):
            path.pop()
        key = prefix + ".".join(path)
        near = ""
        if item["type"] == "extra_forbidden":
            offer = nearest(path[-1], _known_keys(model, path[:-1]))
            rule, near = f"{shortened(key)} is not known", f".{offer}" if offer else ""
        elif item["type"] == "value_error":
            rule = str(item["msg"]).removeprefix("Value error, ")
            rule = f"{shortened(key)}: {rule}" if key else rule
        else:
            message = re.sub("^(Input|String|Value) should ", "must ", item["msg"])
            rule = f"{shortened(key)}: {_RULES.get(item['type'], message)}"
            near = "" if item["type"] == "missing" else f"; found {shown(item['input'])}"
            if item["type"] == "literal_error" and isinstance(item["input"], str):
                offer = nearest(item["input"], re.findall("'([^']*)'", item["ctx"]["expected"]))
                near += f".{offer}" if offer else ""
        rules = held.setdefault(key, [])
        rules.append(rule if not rules else rule.removeprefix(f"{shortened(key)}: must be "))
        found[key] = near
    return {key: " or ".join(rules) + found[key] for key, rules in held.items()}


# How pydantic names the choices of a union and the keys of a mapping in the place of a value.
_NOT_A_KEY = re.compile(r"literal\[.*|dict\[.*|constrained-.*|int|float|\[key\]", re.DOTALL)
_RULES = {
    "missing": "must be given",
    "string_pattern_mismatch": "must be 1 to 64 letters, digits or any of _ . + -, the first a letter or a digit",
    "string_too_short": "must not be empty",
    "model_type": "must be a section",
    "dict_type": "must be a section",
    "tuple_type": "must be a list",
}


def shown(value: object) -> str:
    """A value as it stands in a message: short, however large it is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    try:
        return f"{short.repr(value):.60}"
    except ValueError:  # a number of over 4,300 digits
        return "a number of thousands of digits"


def shortened(key: str) -> str:
    """A key as it stands in a message: on one line, of 80 characters at most."""
    line = key.replace("\n", "\\n")
    return line if len(line) <= 80 else f"{line[:77]}..."


def _known_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    fields: dict[str, FieldInfo] = model.model_fields
    for part in path:
        if part not in fields:  # a name in a mapping of sections, which stands in for them
            continue
        annotation = fields[part].annotation
        section = next((kind for kind in (annotation, *get_args(annotation)) if _is_section(kind)), None)
        fields = section.model_fields if section is not None else {}
    return list(fields)


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
