"""Does the built-in sample teach, and only through its lesions? Test AUC within source, with lesions and painted over.

    python bench/sample_teaches.py [--seeds 0 1 2] [-p NAME VALUE]...

Trains notebook 04's defaults once a seed on each of the two sets, in a temporary folder.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["ATTENTION_HEADLESS"] = "1"

from sklearn.metrics import roc_auc_score

from helpers import workspace  # noqa: E402
from helpers.photographs import sources  # noqa: E402
from helpers.photographs.cache import build_cache  # noqa: E402
from helpers.photographs.sample import make_sample  # noqa: E402
from helpers.photographs.split import make_split  # noqa: E402
from helpers.runs import parameters  # noqa: E402
from helpers.scores import bootstrap  # noqa: E402
from helpers.training import batches  # noqa: E402
from helpers.training.loop import fit, predict_held_out  # noqa: E402
from helpers.training.settings import Settings  # noqa: E402


def measure(settings: Settings, folder: Path) -> tuple[float, float, float]:
    """Test AUC, test AUC within source, and seconds of training."""
    known = {
        name: default
        for name, (_, default) in parameters.known_parameters(parameters.NOTEBOOKS).items()
    }
    dataset = sources.find_dataset(str(folder))
    split = make_split(dataset, benign=known["benign"], split_seed=known["split_seed"])
    cache = build_cache(dataset, split, image_size=settings.image_size)
    photographs = batches.Photographs(cache, workspace.choose_device(settings.device))
    fitted = fit(settings, split, photographs, report=lambda line: None)
    test = predict_held_out(fitted, split, photographs, settings.precision).query("split == 'test'")
    auc = roc_auc_score(test["target"], test["logit"])
    return (
        auc,
        bootstrap.interval(bootstrap.within(test), test["group"])["value"],
        fitted.timing["seconds"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args()
    known = parameters.known_parameters(parameters.NOTEBOOKS)
    given = parameters.read_parameters("", options.p, known)
    with tempfile.TemporaryDirectory() as place:
        os.environ["ATTENTION_DATA"] = place
        for name, lesions in (("with lesions", True), ("painted over", False)):
            folder = Path(place) / name
            make_sample(folder, lesions=lesions)
            found = []
            for seed in options.seeds:
                defaults = {
                    one: known[one][1] for one in Settings.__dataclass_fields__ if one in known
                }
                found.append(measure(Settings(**{**defaults, **given, "seed": seed}), folder))
                print(
                    f"{name}, seed {seed}: test AUC {found[-1][0]:.3f}, within source {found[-1][1]:.3f}, "
                    f"{found[-1][2]:.0f} s",
                    flush=True,
                )
            print(
                f"{name}, mean: within source {sum(one[1] for one in found) / len(found):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
