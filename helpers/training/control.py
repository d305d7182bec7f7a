"""The control: the same network without attention, trained and shown the same photographs.

Without it, nobody can say what attention adds. 04 trains it beside the network; 06 compares.
"""

from pathlib import Path

import pandas as pd
import torch

from helpers import workspace
from helpers.model import AttnVGG
from helpers.photographs.split import read_split
from helpers.photographs.table import TWIN
from helpers.training.checkpoint import load_checkpoint
from helpers.training.settings import OWN, Settings, training_parameters

CONTROL = "control"  # the folder, in a run's, of the control that the run trained itself
# what needs maps, and has nothing to act on in a network that has none
OF_MAPS = ("attention", "mask_weight_pool3", "mask_weight_pool4", "mask_target")


def control_settings(settings: Settings) -> Settings:
    """The settings of a network's control: without attention, and all else equal.

    The terms of the loss that act on maps fall away with them.

    >>> settings = control_settings(Settings(attention="sigmoid", mask_weight_pool3=0.1, epochs=3))
    >>> settings.attention, settings.mask_weight_pool3, settings.epochs
    ('none', 0.0, 3)
    """
    values = training_parameters(settings)
    for name in OF_MAPS:
        del values[name]
    return Settings(**values, attention="none")


def why_no_control(control: str, attention: str) -> str:
    """Why a run trains no control of its own; "" where it does.

    Args:
        control: the parameter of this name.
        attention: the same.

    >>> why_no_control("own", "softmax")
    ''
    >>> why_no_control("", "softmax")
    'control is empty: no network without attention is trained beside this one'
    """
    if control == "":
        return "control is empty: no network without attention is trained beside this one"
    if control != OWN:
        return (
            f"control is the run {control!r}, which 06_audit.ipynb compares with: no other is "
            "trained here"
        )
    if attention == "none":
        return "attention is 'none': this network is itself a control, and has none of its own"
    return ""


def control_folder(control: str, folder: Path, attention: str) -> Path | None:
    """Where the model.pt and predictions.csv of a run's control lie; None where it has none.

    Args:
        control: the parameter of this name.
        folder: of the run that is compared.
        attention: of its network. One without attention has no control of its own.

    Raises:
        ValueError: `control` is not the name of one folder.
    """
    if control == OWN:
        return None if attention == "none" else folder / CONTROL
    if control == "":
        return None
    workspace.check_run_name(control)
    return workspace.runs_folder() / control


def load_control(
    control: str,
    device: torch.device,
    *,
    split: pd.DataFrame,
    config: dict,
    folder: Path | None = None,
) -> tuple[AttnVGG, dict]:
    """The network that the parameter `control` names, and its config.

    Args:
        control: the name of a run; or "own", the control that 04 trained in `folder`.
        device: where it is to compute.
        split: of the run that it is compared with.
        config: of model.pt of that run.
        folder: of that run; only "own" needs it.

    Raises:
        FileNotFoundError: there is no such control, or it is not trained.
        ValueError: it has attention, sees photographs in another size or part, or has learned from
            test photographs of this run; or the two differ in what is a melanoma. A run's own must
            not differ from it in anything but attention.
    """
    if control == OWN:
        if folder is None:
            raise ValueError(
                "control is 'own': expected the folder of the run, too, in which it lies"
            )
        return load_own(folder, device, split, config)
    workspace.check_run_name(control)
    place = workspace.runs_folder() / control
    if not (place / "model.pt").exists():
        raise FileNotFoundError(
            f"control: {place / 'model.pt'} is not there: name a run that 04_train.ipynb has "
            "trained with attention 'none'; or 'own', or ''"
        )
    theirs = read_split(place / "split.csv")
    network, settings = load_checkpoint(place / "model.pt", device, split=theirs)
    check_kind(f"run {control!r}", settings, config)
    check_sides(control, split, theirs)
    return network, settings


def load_own(
    folder: Path, device: torch.device, split: pd.DataFrame, config: dict
) -> tuple[AttnVGG, dict]:
    """The control that 04 trained in a run's folder. Arguments and errors as `load_control`."""
    place = folder / CONTROL
    for name in ("model.pt", "predictions.csv"):
        if not (place / name).exists():
            raise FileNotFoundError(
                f"control: {place / name} is not there: run 04_train.ipynb of run "
                f"{folder.name!r}, which trains it where `control` is 'own'; or set `control` to "
                "'', which compares with none"
            )
    network, settings = load_checkpoint(place / "model.pt", device, split=split)
    check_kind(str(place), settings, config)
    others = [name for name in differences(config, settings) if name not in OF_MAPS]
    if others:
        raise ValueError(
            f"control: the network in {place} is of another training than model.pt beside it: "
            f"they differ in {', '.join(others)}. Run 04_train.ipynb again with `control` 'own', "
            "or set `control` to '', which compares with none"
        )
    return network, settings


def check_kind(where: str, settings: dict, config: dict) -> None:
    """Raises ValueError if a control has attention, or sees photographs in another size or part.

    Args:
        where: it lies, in words.
        settings: the control's config.
        config: of the network that it is compared with.
    """
    if settings["attention"] != "none":
        raise ValueError(
            f"control: {where} has attention {settings['attention']!r}, expected 'none'"
        )
    for name in ("image_size", "view"):
        if settings[name] != config[name]:
            raise ValueError(
                f"control: {name} is {settings[name]} in {where} and {config[name]} here: a "
                "control takes the same photographs. Train it with the parameters of this run, "
                "but attention"
            )


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
