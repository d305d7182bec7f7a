"""The parameters of the series, as a command gives them: in a file of YAML, or as NAME VALUE.

What they may be is said in `helpers.training.settings`, once; here text becomes values, and a path
starts at the caller's folder.
"""

import argparse
import ast
import difflib
import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from helpers import hosts, workspace
from helpers.training.settings import (
    NAMES,
    OWN,
    Parameters,
    Settings,
    in_quotes,
    kind_of,
    path_or,
    unknown,
)

NOTEBOOKS = sorted((workspace.PROJECT / "notebooks").glob("0*.ipynb"))
TYPES = {"str": str, "int": int, "float": float, "bool": bool}


def known_parameters(notebooks: Sequence[Path]) -> dict[str, tuple[type, object]]:
    """Type and default of every parameter that these notebooks declare, by name."""
    import papermill  # here, as yaml below: a machine that only trains need not have it

    known = {}
    for notebook in notebooks:
        for name, declared in papermill.inspect_notebook(no_template(notebook)).items():
            kind = TYPES[declared["inferred_type_name"]]
            known[name] = (kind, ast.literal_eval(declared["default"]))
    return known


def no_template(path: Path) -> str:
    """A path as papermill takes it, which would fill in what stands in braces.

    >>> no_template(Path("lr{1e-4}"))
    'lr{{1e-4}}'
    """
    return str(path).replace("{", "{{").replace("}", "}}")


# what is typed


class Once(argparse.Action):
    """An option that has one value; argparse would take the last of several, and not say so."""

    def __call__(self, parser, options, value, option_string=None):
        before = getattr(options, self.dest)
        if before not in (self.default, value):
            raise ValueError(
                f"{option_string} is given twice, as {before!r} and {value!r}: leave one out"
            )
        setattr(options, self.dest, value)


def split_pairs(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The NAME VALUE behind each -p, and the other words.

    argparse would take a value such as -1e-4 for an option.

    Raises:
        ValueError: a -p is written in another way, or its value is missing.

    >>> split_pairs(["--run", "a", "-p", "alpha", "-1e-4"])
    ([('alpha', '-1e-4')], ['--run', 'a'])
    """
    pairs = []
    others = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-p"):
            others.append(word)
            continue
        typed = [word, *itertools.islice(rest, 2)]
        name, value = (typed + ["", ""])[1:3]
        no_value = len(typed) < 3 or value == "-p" or value.startswith("--")
        if word != "-p" or no_value or "=" in name or name.startswith("-"):
            raise ValueError(
                f"{' '.join(typed)}: a parameter is typed as -p NAME VALUE, with blanks between "
                "them, such as -p epochs 3"
            )
        pairs.append((name, value))
    return pairs, others


def no_option(words: Sequence[str], options: Collection[str], names: Collection[str]) -> str:
    """That the first of these words is no option, and what to type if one is near.

    Args:
        words: what argparse did not know.
        options: the command's, without their dashes.
        names: of the parameters that -p takes.

    >>> no_option(["--epochs", "3"], ["run"], ["epochs"])
    "there is no option '--epochs'; type -p epochs 3"
    """
    name, _, value = words[0].lstrip("-–—").partition("=")  # some editors make a dash of --
    if not value:
        value = words[1] if len(words) > 1 else "VALUE"
    typed = {known: f"-p {known} {value}" for known in names}
    typed |= {option: f"--{option} {value}" for option in options}
    near = difflib.get_close_matches(name, typed, n=1)
    hint = f"type {typed[near[0]]}" if near else "--help lists them"
    return f"there is no option {words[0]!r}; {hint}"


def refuse_idle(names: Sequence[str], chosen: Sequence[Settings]) -> None:
    """Raises ValueError where a parameter that was typed changes nothing beside the others.

    Args:
        names: what was typed.
        chosen: all parameters, of each run that there will be.
    """
    for name in names:
        reasons = [idle(name, settings) for settings in chosen]
        if all(reasons):
            raise ValueError(f"{reasons[0]}: set that, too, or leave {name} out")


def idle(name: str, settings: Settings) -> str:
    """Why a parameter changes nothing beside the others, or "" where it counts.

    >>> idle("mask_target", Settings())
    'mask_target is for maps that learn from masks, and both mask weights are 0'
    >>> idle("epochs", Settings())
    ''
    """
    if name == "mask_target" and not any(settings.mask_weights):
        return "mask_target is for maps that learn from masks, and both mask weights are 0"
    if name == "control" and settings.control == OWN and settings.attention == "none":
        return "control 'own' is for a network with attention, and attention is 'none'"
    source = name.split("_")[0]
    if source in ("kaggle", "isic") and settings.dataset != source:
        return f"{name} is for dataset {source!r}, and dataset is {settings.dataset!r}"
    return ""


# what it means


def read_parameters(
    file: str, pairs: Sequence[tuple[str, str]], known: Collection[str]
) -> dict[str, object]:
    """Parameters from a YAML file (or ""), then from NAME VALUE pairs, which win over the file.

    Args:
        file: the path of the file, "" for none.
        pairs: names and values as text.
        known: the names that may be given.

    Returns:
        Values by name, of the parameter's type; a path is absolute.

    Raises:
        ValueError: a name is not known (the nearest is given), a value is of another type, two
            pairs contradict each other, or nothing lies at a path.
    """
    values = {name: read_value(name, value, known) for name, value in read_file(file).items()}
    typed = {}
    for name, text in pairs:
        value = read_value(name, text, known)
        if typed.setdefault(name, value) != value:
            raise ValueError(
                f"{name} is given twice, as {typed[name]!r} and {value!r}: leave one out"
            )
    return values | typed


def read_value(name: str, value: object, known: Collection[str]) -> object:
    """One parameter's value; raises ValueError as `read_parameters`."""
    if name not in known:
        raise ValueError(unknown(name, list(known)))
    value = as_path(name, convert(name, value, kind_of(name)))
    if isinstance(value, str) and not workspace.is_utf8(value):
        raise ValueError(f"{name} is {value!r}, with letters that are not UTF-8: rename it")
    return value


def read_file(file: str) -> dict:
    """The content of a YAML file of parameters; nothing where the name is "".

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    if not file:
        return {}
    import yaml

    try:
        text = hosts.absolute(file, Path.cwd()).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)  # still has a name that stands twice
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"--params {file} cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(
            f"--params {file} holds a {type(content).__name__}, expected lines of `name: value`"
        )
    names = [name.value for name, _ in root.value]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--params {file} gives {name} twice: leave one out")
    return content


def say_passed_over(file: str, taken: Collection[str]) -> None:
    """Print which values of a file of parameters have no effect here: it may be for all parts."""
    others = sorted(set(read_file(file)) - set(taken))
    if others:
        print(f"of {file}, {', '.join(others)} are for other parts and change nothing here")


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
    raise ValueError(f"{name} is {value!r}, expected {NAMES[kind]}{in_quotes(kind, value)}")


def as_path(name: str, value: object) -> object:
    """Where the parameter names a path: absolute, from the caller's folder; else as it is.

    Raises:
        ValueError: nothing is there.
    """
    path_or_word = path_or(name)
    if path_or_word is None or path_or_word.takes(value):
        return value
    try:
        path = hosts.absolute(value, Path.cwd())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not value or not os.path.exists(path):
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
