"""`python -m helpers.train`: the network of a prepared run, trained on one device or on several."""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers import workspace
from helpers.runs.parameters import (
    Once,
    no_option,
    read_parameters,
    refuse_idle,
    say_passed_over,
    split_pairs,
)
from helpers.scores import metrics
from helpers.scores.results import calibrate_and_summarise
from helpers.training import processes
from helpers.training.batches import open_prepared
from helpers.training.checkpoint import PROGRESS, write_results
from helpers.training.control import CONTROL, control_settings, why_no_control
from helpers.training.loop import fit, predict_held_out
from helpers.training.settings import Parameters, Settings


def train_run(run: str, settings: Settings, control: str = "") -> None:
    """Train the network of a run whose photographs and split are made; leave what 04 leaves.

    Of several processes the first writes. Of metrics.json only the guesses that see no lesion
    (`baselines`) are left to the notebook.

    Args:
        run: its name.
        settings: how to train.
        control: the parameter of this name: "own" trains the network's control, too, after it.

    Raises:
        FileNotFoundError: the run is not prepared; the message names the notebook that does it.
        Exception: as `loop.fit`.
    """
    folder = prepared_folder(run)
    reason = why_no_control(control, settings.attention)
    with processes.started(settings.device) as device:
        split, photographs = open_prepared(folder, device)
        report = functools.partial(print, flush=True) if processes.first() else str
        train = functools.partial(fit, split=split, photographs=photographs, report=report)
        trainings = {folder: (settings, train(settings, progress=folder / PROGRESS))}
        if not reason:
            report("its control, without attention:")
            place = folder / CONTROL
            matched = control_settings(settings)
            trainings[place] = (matched, train(matched, progress=place / PROGRESS))
        elif control:
            report(reason)
        writes = processes.first()
    if not writes:  # nor waits for the one that does
        return
    # all at the end: until then a killed command finds the progress of each
    for place, (how, fitted) in reversed(trainings.items()):
        predictions = predict_held_out(fitted, split, photographs, how.precision)
        print(metrics.caution(predictions[predictions["split"] == "val"]), end="")
        predictions, content = calibrate_and_summarise(predictions, split, how)
        write_results(place, fitted, predictions, content)
        speed = fitted.timing["images_per_second"]
        print(f"{speed:.0f} photographs/s; the network and its figures: {place}")


def prepared_folder(run: str) -> Path:
    """The folder of a run that 01 and 02 have prepared; it is not made here.

    Raises:
        ValueError: `run` is not the name of one folder.
        FileNotFoundError: nothing has been prepared there.
        CannotWrite: nothing can be written there.
    """
    workspace.check_run_name(run)
    runs = workspace.runs_folder()
    if not runs.is_file():
        workspace.need(runs / run / "dataset.json", "01_download.ipynb")
    return workspace.run_folder(run)


def taken_names() -> list[str]:
    """The parameters that training takes: those of `Settings`, and whether a control is trained."""
    return [*(field.name for field in dataclasses.fields(Settings)), "control"]


def read_settings(run: str, file: str, pairs: Sequence[tuple[str, str]]) -> Parameters:
    """The parameters of training, from a file that may hold those of the whole series, and pairs.

    What the file says to other notebooks is passed over, with a line that says so.

    Args:
        run: its name.
        file: the path of a file of parameters, or "".
        pairs: names and values as text, which win over the file.

    Raises:
        ValueError: as `read_parameters`; or a pair names what training does not take.
    """
    known = [field.name for field in dataclasses.fields(Parameters)]
    taken = taken_names()
    for name, _ in pairs:
        if name in known and name not in taken:
            hint = "--run names the run" if name == "run" else f"it takes {', '.join(taken)}"
            raise ValueError(f"helpers.train takes no parameter {name!r}: {hint}")
    values = read_parameters(file, pairs, known)
    say_passed_over(file, taken)
    chosen = {name: value for name, value in values.items() if name in taken}
    settings = Parameters(run=run, **chosen)
    refuse_idle([name for name, _ in pairs], [settings])
    return settings


def read_options(words: Sequence[str]) -> argparse.Namespace:
    """The options; raises ValueError where a word is none."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.train",
        description="Train a run, on one GPU or several.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--run", action=Once, required=True, help="a run that 01 and 02 have prepared")
    add(
        "--params",
        action=Once,
        default="",
        metavar="FILE",
        help="parameters in YAML, as in notebooks/params/",
    )
    add("-p", nargs=2, metavar=("NAME", "VALUE"), help="a parameter of training")
    options, unknown = parser.parse_known_args(words)
    if unknown:
        raise ValueError(no_option(unknown, ["run", "params"], taken_names()))
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code.

    0: trained. 1: it failed, or something is missing. 2: a parameter is unknown, not taken here, of
    the wrong type, or contradicts another. 130: stopped from the keyboard.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["--"]:  # torchrun passes its own on
        given = given[1:]
    try:
        workspace.start_command()
        pairs, words = split_pairs(given)
        options = read_options(words)
        settings = read_settings(options.run, options.params, pairs)
    except ValueError as error:
        print(f"helpers.train: {error}", file=sys.stderr)
        return 2
    try:
        train_run(options.run, settings, settings.control)
    except (
        ValueError,
        FileNotFoundError,
        ConnectionError,
        MemoryError,
        FloatingPointError,
        processes.Disagreement,
        workspace.CannotRead,
        workspace.CannotWrite,
    ) as error:
        print(f"helpers.train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "helpers.train: stopped; the same command goes on after the last whole epoch",
            file=sys.stderr,
        )
        return 130
    return 0
