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
from helpers.training import processes
from helpers.training.batches import open_prepared
from helpers.training.checkpoint import PROGRESS, write_results
from helpers.training.loop import fit, predict_held_out
from helpers.training.settings import RECIPES, Parameters, Settings


def train_run(run: str, settings: Settings) -> None:
    """Train the network of a run whose photographs and split are made; leave what 04 leaves.

    Of several processes the first writes. Of metrics.json only the guesses that see no lesion
    (`baselines`) are left to the notebook.

    Raises:
        FileNotFoundError: the run is not prepared; the message names the notebook that does it.
        Exception: as `loop.fit`.
    """
    folder = prepared_folder(run)
    with processes.started(settings.device) as device:
        split, photographs = open_prepared(folder, device)
        report = functools.partial(print, flush=True) if processes.first() else str
        fitted = fit(settings, split, photographs, report=report, progress=folder / PROGRESS)
        if not processes.first():
            return
        predictions = predict_held_out(fitted, split, photographs, settings.precision)
        val = predictions[predictions["split"] == "val"]
        shift = metrics.prior_shift(split, RECIPES[settings.recipe].melanoma_times)
        calibration = metrics.calibrate(val["logit"], val["target"], val["group"], shift=shift)
        print(metrics.caution(val), end="")
        predictions["probability"] = metrics.probability(predictions["logit"], calibration)
        val_probability = predictions.loc[val.index, "probability"]
        content = metrics.summarise(
            predictions,
            calibration=calibration,
            threshold=metrics.choose_threshold(val["target"], val_probability),
            weights=settings.weights,
        )
        write_results(folder, fitted, predictions, content)
        speed = fitted.timing["images_per_second"]
        print(f"{speed:.0f} photographs/s; the network and its figures: {folder}")


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


def read_settings(file: str, pairs: Sequence[tuple[str, str]]) -> Settings:
    """The parameters of training, from a file that may hold those of the whole series, and pairs.

    What the file says to other notebooks is passed over, with a line that says so.

    Raises:
        ValueError: as `read_parameters`; or a pair names what training does not take.
    """
    known = [field.name for field in dataclasses.fields(Parameters)]
    taken = [field.name for field in dataclasses.fields(Settings)]
    for name, _ in pairs:
        if name in known and name not in taken:
            hint = "--run names the run" if name == "run" else f"it takes {', '.join(taken)}"
            raise ValueError(f"helpers.train takes no parameter {name!r}: {hint}")
    values = read_parameters(file, pairs, known)
    say_passed_over(file, taken)
    settings = Settings(**{name: value for name, value in values.items() if name in taken})
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
        taken = [field.name for field in dataclasses.fields(Settings)]
        raise ValueError(no_option(unknown, ["run", "params"], taken))
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
        train_run(options.run, read_settings(options.params, pairs))
    except ValueError as error:
        print(f"helpers.train: {error}", file=sys.stderr)
        return 2
    except (
        FileNotFoundError,
        ConnectionError,
        MemoryError,
        FloatingPointError,
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
