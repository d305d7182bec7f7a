"""The control of notebook 06: a run without attention, trained and shown the same photographs."""

import pandas as pd
import torch

from helpers import workspace
from helpers.model import AttnVGG
from helpers.photographs.split import read_split
from helpers.photographs.table import TWIN
from helpers.training.checkpoint import load_checkpoint


def load_control(
    run: str,
    device: torch.device,
    *,
    split: pd.DataFrame,
    config: dict,
) -> tuple[AttnVGG, dict]:
    """The network of the run that the parameter `control` names, and its config.

    Args:
        run: its name.
        device: where it is to compute.
        split: of the run that it is compared with.
        config: of model.pt of that run.

    Raises:
        FileNotFoundError: there is no such run, or it is not trained.
        ValueError: it has attention, sees photographs in another size or part, or has learned from
            test photographs of this run; or the two differ in what is a melanoma.
    """
    workspace.check_run_name(run)
    folder = workspace.runs_folder() / run
    if not (folder / "model.pt").exists():
        raise FileNotFoundError(
            f"control: {folder / 'model.pt'} is not there: name a run that 04_train.ipynb has "
            "trained with attention 'none', or ''"
        )
    theirs = read_split(folder / "split.csv")
    network, settings = load_checkpoint(folder / "model.pt", device, split=theirs)
    if settings["attention"] != "none":
        raise ValueError(
            f"control: run {run!r} has attention {settings['attention']!r}, expected 'none'"
        )
    for name in ("image_size", "view"):
        if settings[name] != config[name]:
            raise ValueError(
                f"control: {name} is {settings[name]} in run {run!r} and {config[name]} here: a "
                "control takes the same photographs. Train it with the parameters of this run, "
                "but attention"
            )
    check_sides(run, split, theirs)
    return network, settings


def check_sides(run: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Raises ValueError if a control learned from our test photographs, or of other targets.

    Args:
        run: the control's name.
        ours: split.csv of the run that it is compared with.
        theirs: its own.
    """
    both = ours[["image_id", "target"]].merge(theirs[["image_id", "target"]], on="image_id")
    other = both[both["target_x"] != both["target_y"]]
    if len(other):
        raise ValueError(
            f"control: {len(other)} photographs have another target in run {run!r} than here, such "
            f"as {other['image_id'].iloc[0]}: make both runs from one table"
        )
    # a group of theirs may hold, by a twin or a pair, a photograph that they did not train on
    learned = theirs[(theirs["split"] == "train") & (theirs["kept"] == 1)]
    relatives = theirs[theirs["group"].isin(learned["group"])]
    test = ours[ours["split"] == "test"]["image_id"].str.removesuffix(TWIN)
    leaked = set(test) & set(relatives["image_id"].str.removesuffix(TWIN))
    if leaked:
        raise ValueError(
            f"control: run {run!r} has learned from {len(leaked)} of the {test.nunique()} test "
            f"photographs of this run, or from their patients, such as {min(leaked)}. Make it with "
            "the same split: 02_preprocess.ipynb with the same pairs, subsample and split_seed"
        )


def differences(config: dict, settings: dict) -> list[str]:
    """The names of what the trainings of two networks did not have in common.

    Args:
        config: of one model.pt.
        settings: of another.
    """
    ours = config.get("made_from", config)  # not in a file of the first edition
    theirs = settings.get("made_from", settings)
    return [name for name, value in ours.items() if theirs.get(name) != value]


def common_test(ours: pd.DataFrame, theirs: pd.DataFrame) -> int:
    """How many test photographs two files of predictions have in common."""
    test = [rows.loc[rows["split"] == "test", "image_id"] for rows in (ours, theirs)]
    return int(test[0].isin(test[1]).sum())
