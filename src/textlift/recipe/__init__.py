"""A recipe: one job in full, as frozen values with their range, default and meaning.

Reads YAML and `key=value` overrides. Does not know which methods exist or what a model needs: options of a method
stay a plain mapping here and are checked by the method table.
"""

from textlift.recipe.parsing import parse_recipe, recipe_yaml
from textlift.recipe.reading import apply_overrides, read_recipe, recipe_names, recipe_path
from textlift.recipe.sections import (
    FORMAT_VERSION,
    SPLITS,
    Count,
    DataSection,
    DecisionSection,
    ModelSection,
    Name,
    Quantization,
    Recipe,
    RuntimeSection,
    SchedulerType,
    Section,
    TrainingSection,
    Variant,
    VariantSection,
)
from textlift.recipe.wording import complaints

__all__ = [
    "FORMAT_VERSION",
    "SPLITS",
    "Count",
    "DataSection",
    "DecisionSection",
    "ModelSection",
    "Name",
    "Quantization",
    "Recipe",
    "RuntimeSection",
    "SchedulerType",
    "Section",
    "TrainingSection",
    "Variant",
    "VariantSection",
    "apply_overrides",
    "complaints",
    "parse_recipe",
    "read_recipe",
    "recipe_names",
    "recipe_path",
    "recipe_yaml",
]
