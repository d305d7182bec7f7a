"""The parameters of the notebooks, as a command gives them: known by name, of the right type, not at odds.

`helpers.run` and `helpers.train` read them here, so that a name means one thing wherever it is written.
"""

import ast
import dataclasses
import difflib
import math
from collections.abc import Sequence
from pathlib import Path

from helpers import workspace
from helpers.training.settings import Settings

NOTEBOOKS = sorted((workspace.PROJECT / "notebooks").glob("0*.ipynb"))
TYPES = {"str": str, "int": int, "float": float, "bool": bool}
# parameters that may be a path, and what they hold when they are none
WORDS = {
    "dataset": ("sample", "kaggle"),
    "masks": ("auto", "", "kaggle:"),
    "weights": ("none", "imagenet"),
    "ids": ("",),
    "pairs": ("",),
    "photograph": ("",),
}

RANGES = {
    "subsample": (0, None),
    "benign": (0, None),
    "split_seed": (0, 2**32 - 1),
    "seed": (0, 2**32 - 1),
    "unusable": (0, 1),
    "posthoc": (1, None),
}  # beside those of Settings


def known_parameters(notebooks: Sequence[Path]) -> dict[str, tuple[type, object]]:
    """Type and default of every parameter that these notebooks declare, by name."""
    import papermill  # here, as yaml below: what only trains runs where neither is installed

    known = {}
    for notebook in notebooks:
        for name, found in papermill.inspect_notebook(str(notebook)).items():
            known[name] = (TYPES[found["inferred_type_name"]], ast.literal_eval(found["default"]))
    return known


def read_parameters(file: str, pairs: Sequence[tuple[str, str]], known: dict) -> dict:
    """Parameters from a YAML file (or ""), then from NAME VALUE pairs; names and types are those of the notebooks.

    Relative paths start at the caller's folder. Raises ValueError, with the nearest known name where a name is unknown.
    """
    given = {}
    if file:
        import yaml

        try:
            given = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"--params {file} cannot be read: {error}") from error
        if not isinstance(given, dict):
            raise ValueError(
                f"--params {file} holds a {type(given).__name__}, expected lines of `name: value`"
            )
    values = {}
    for name, value in [*given.items(), *pairs]:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise ValueError(
                f"there is no parameter {name!r}"
                + (
                    f"; did you mean {near[0]!r}?"
                    if near
                    else f"; there are: {', '.join(sorted(known))}"
                )
            )
        values[name] = as_path(name, convert(name, value, known[name][0]))
    return values


def convert(name: str, value: object, kind: type) -> object:
    """`value` as `kind`; text is read as the command line writes it. Raises ValueError for the wrong type."""
    try:
        if isinstance(value, str) and kind is bool:
            return {"true": True, "false": False}[value.lower()]
        if isinstance(value, str) or (kind is float and type(value) is int):
            return kind(value)
        if type(value) is kind:
            return value
    except (ValueError, KeyError):
        pass
    raise ValueError(
        f"{name} is {value!r}, expected {'true or false' if kind is bool else kind.__name__}"
    )


def as_path(name: str, value: object) -> object:
    """Where the parameter names a path: absolute, from the caller's folder. Raises ValueError if nothing is there."""
    if (
        name not in WORDS
        or value in WORDS[name]
        or ("kaggle:" in WORDS[name] and str(value).startswith("kaggle:"))
    ):
        return value
    path = Path(value).expanduser().absolute()
    if not value or not path.exists():
        words = ", ".join(repr(word) for word in WORDS[name] if word)
        raise ValueError(
            f"{name}: there is nothing at {path}; name a file or folder{', or ' if words else ''}{words}"
        )
    return str(path)


def check(values: dict, known: dict) -> Settings:
    """The settings of training that these values and the defaults make.

    Raises ValueError where values are out of range or contradict each other.
    """
    merged = {name: default for name, (_, default) in known.items()} | values
    names = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: merged[name] for name in names if name in merged})
    workspace.run_folder(merged.get("run", "sample"))
    for name, (least, most) in RANGES.items():
        if name in merged and not least <= merged[name] <= (math.inf if most is None else most):
            raise ValueError(
                f"{name} is {least} {'or more' if most is None else f'to {most}'}, not {merged[name]}"
            )
    return settings


def check_here(variables: dict) -> None:
    """Check the parameters of a notebook, whose globals() these are, as `check` does, and the types its cell notes.

    For values that came through no command of ours: typed into the cell, or by papermill. Raises ValueError.
    """
    noted = {
        name: kind for name, kind in variables["__annotations__"].items() if kind in TYPES.values()
    }
    for name, kind in noted.items():
        if type(variables[name]) is not kind and not (
            kind is float and type(variables[name]) is int
        ):
            raise ValueError(
                f"{name} is {variables[name]!r}, expected {kind.__name__}: correct it in the cell of "
                "parameters, and run the notebook from there"
            )
    check({name: variables[name] for name in noted}, {})
