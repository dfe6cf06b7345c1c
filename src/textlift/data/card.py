"""The YAML header of a data set's README.md: its configurations and the names of its labels."""

from dataclasses import dataclass, field
from typing import Any

from textlift.data.problems import listed, quoted
from textlift.errors import InputNotFoundError, nearest


@dataclass(frozen=True)
class Card:
    """What the header says; empty where there is none."""

    configs: list[dict[str, Any]] = field(default_factory=list)
    info: list[dict[str, Any]] = field(default_factory=list)

    def config(self, name: str | None, *, place: str) -> dict[str, Any] | None:
        """The configuration of this name; without a name the default one, or the only one; None where there is none.

        Raises:
            InputNotFoundError: There is none of this name, or the name is needed.
        """
        by_name = {str(config.get("config_name", "default")): config for config in self.configs}
        if name is None and not by_name:
            return None
        if name is None:
            marked = [config for config in self.configs if config.get("default")]
            usable = marked or ([by_name["default"]] if "default" in by_name else []) or list(by_name.values())
            if len(usable) == 1:
                return usable[0]
            raise InputNotFoundError(f"{place}: one configuration must be named, as in {place}:NAME; {_has(by_name)}.")
        if name not in by_name:
            raise InputNotFoundError(
                f"{place}: must have a configuration {quoted(name)}; {_has(by_name)}.{nearest(name, by_name)}"
            )
        return by_name[name]

    def class_names(self, config: str | None) -> dict[str, tuple[str, ...]]:
        """Names of integer labels, by column."""
        info = next((entry for entry in self.info if entry.get("config_name") == config), None)
        info = info or (self.info[0] if len(self.info) == 1 else {})
        features = info.get("features")
        found = {}
        for feature in features if isinstance(features, list) else []:
            names = _names_of(feature) if isinstance(feature, dict) else None
            if names:
                found[str(feature.get("name"))] = names
        return found


def read_card(text: str) -> Card:
    """The card of a README.md; a header that is no YAML counts as none."""
    import yaml

    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return Card()
    end = next(number for number, line in enumerate(lines[1:], start=1) if line.strip() == "---")
    try:
        header = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError:
        return Card()
    header = header if isinstance(header, dict) else {}
    return Card(configs=_records(header.get("configs")), info=_records(header.get("dataset_info")))


def _records(value: object) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _names_of(feature: dict[str, Any]) -> tuple[str, ...] | None:
    dtype = feature.get("dtype")
    names = dtype.get("class_label", {}).get("names") if isinstance(dtype, dict) else None
    if isinstance(names, list):
        return tuple(str(name) for name in names)
    if isinstance(names, dict) and sorted(map(str, names)) == sorted(map(str, range(len(names)))):
        by_id = {int(key): str(name) for key, name in names.items()}
        return tuple(by_id[number] for number in range(len(by_id)))
    return None


def _has(by_name: dict[str, Any]) -> str:
    return f"it has {listed(by_name)}" if by_name else "it has none"
