"""`python -m helpers.train`: the network of a prepared run, trained on one device or under torchrun on several."""

import argparse
import functools
import sys
from collections.abc import Sequence

from helpers import workspace
from helpers.runs import parameters
from helpers.scores import metrics
from helpers.training import processes
from helpers.training.batches import open_prepared
from helpers.training.checkpoint import PROGRESS, write_results
from helpers.training.loop import fit, predict_held_out
from helpers.training.settings import Settings


def train_run(run: str, settings: Settings) -> None:
    """Train the network of a run whose photographs and split are made; the first process leaves what 04 leaves.

    Of metrics.json only the guesses that see no lesion (`baselines`) are left to the notebook.
    """
    folder = workspace.run_folder(run)
    with processes.started(settings.device) as device:
        split, photographs = open_prepared(folder, device)
        first = processes.place()[0] == 0
        fitted = fit(
            settings,
            split,
            photographs,
            report=functools.partial(print, flush=True) if first else str,
            progress=folder / PROGRESS,
        )
        if first:
            predictions = predict_held_out(fitted, split, photographs, settings.precision)
            val = predictions[predictions["split"] == "val"]
            calibration = metrics.calibrate(val["logit"], val["target"])
            predictions["probability"] = metrics.probability(predictions["logit"], calibration)
            threshold = metrics.choose_threshold(
                val["target"], predictions.loc[val.index, "probability"]
            )
            write_results(
                folder,
                fitted,
                predictions,
                metrics.summarise(
                    predictions,
                    calibration=calibration,
                    threshold=threshold,
                    weights=settings.weights,
                ),
            )
            print(
                f"{fitted.timing['images_per_second']:.0f} photographs/s; the network and its figures: {folder}"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.train", description="Train a run, on one GPU or several."
    )
    parser.add_argument("--run", required=True, help="a run that 01 and 02 have prepared")
    parser.add_argument(
        "--params", default="", metavar="FILE", help="parameters in YAML, as in notebooks/params/"
    )
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one parameter"
    )
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(
        given[1:] if given[:1] == ["--"] else given
    )  # torchrun passes its `--` on
    known = parameters.known_parameters(parameters.NOTEBOOKS)
    try:
        settings = parameters.check(
            parameters.read_parameters(options.params, options.p, known), known
        )
        train_run(options.run, settings)
    except (
        ValueError,
        FileNotFoundError,
        MemoryError,
        FloatingPointError,
        workspace.CannotWrite,
    ) as error:
        print(f"helpers.train: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        print(
            "helpers.train: stopped; the same command goes on after the last whole epoch",
            file=sys.stderr,
        )
        return 130
    return 0
