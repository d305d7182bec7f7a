"""The parameters of the series, as a command gives them: in a file of YAML, or as NAME VALUE.

What they may be is said in `helpers.training.settings`, once; here text becomes values, and a path
starts at the caller's folder.
"""

import ast
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from helpers import workspace
from helpers.training.settings import NAMES, Parameters, kind_of, path_or, unknown

NOTEBOOKS = sorted((workspace.PROJECT / "notebooks").glob("0*.ipynb"))
TYPES = {"str": str, "int": int, "float": float, "bool": bool}


def known_parameters(notebooks: Sequence[Path]) -> dict[str, tuple[type, object]]:
    """Type and default of every parameter that these notebooks declare, by name."""
    import papermill  # here, as yaml below: a machine that only trains need not have it

    known = {}
    for notebook in notebooks:
        for name, declared in papermill.inspect_notebook(str(notebook)).items():
            kind = TYPES[declared["inferred_type_name"]]
            known[name] = (kind, ast.literal_eval(declared["default"]))
    return known


def read_parameters(
    file: str, pairs: Sequence[tuple[str, str]], known: Collection[str]
) -> dict[str, object]:
    """Parameters from a YAML file (or ""), then from NAME VALUE pairs; the last of a name counts.

    Args:
        file: the path of the file, "" for none.
        pairs: names and values as text.
        known: the names that may be given.

    Returns:
        Values by name, of the parameter's type; a path is absolute.

    Raises:
        ValueError: a name is not known (the nearest is given), a value is of another type, or
            nothing lies at a path.
    """
    values = {}
    for name, value in [*read_file(file).items(), *pairs]:
        if name not in known:
            raise ValueError(unknown(name, list(known)))
        values[name] = as_path(name, convert(name, value, kind_of(name)))
    return values


def read_file(file: str) -> dict:
    """The content of a YAML file of parameters; nothing where the name is "".

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    if not file:
        return {}
    import yaml

    try:
        content = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--params {file} cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(
            f"--params {file} holds a {type(content).__name__}, expected lines of `name: value`"
        )
    return content


def convert(name: str, value: object, kind: type) -> object:
    """`value` as `kind`, where it is of that type or text that says it.

    Raises:
        ValueError: it is neither.

    >>> convert("epochs", "8", int)
    8
    """
    if type(value) is kind:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(value, str):
        try:
            if kind is bool:
                return {"true": True, "false": False}[value.lower()]
            return kind(value)
        except (ValueError, KeyError):
            pass
    raise ValueError(f"{name} is {value!r}, expected {NAMES[kind]}")


def as_path(name: str, value: object) -> object:
    """Where the parameter names a path: absolute, from the caller's folder; else as it is.

    Raises:
        ValueError: nothing is there.
    """
    path_or_word = path_or(name)
    if path_or_word is None or path_or_word.takes(value):
        return value
    path = Path(value).expanduser().absolute()
    if not value or not path.exists():
        raise ValueError(f"{name}: there is nothing at {path}; expected {path_or_word.in_words()}")
    return str(path)


def check(values: Mapping, known: Mapping[str, tuple[type, object]]) -> Parameters:
    """The parameters that these values and the defaults of the rest make.

    Args:
        values: of `read_parameters`.
        known: of `known_parameters`.

    Raises:
        ValueError: a value is out of range, or contradicts another.
    """
    defaults = {name: default for name, (_, default) in known.items()}
    return Parameters(**{**defaults, **values})
