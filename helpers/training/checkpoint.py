"""What training keeps on disk: the network when it is done, and until then its last whole epoch.

A killed run goes on from that epoch. No code that lies in a file is ever run.
"""

import hashlib
import os
import pickle
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torchvision.models import VGG16_BN_Weights

from helpers import workspace
from helpers.model import AttnVGG
from helpers.training.batches import Photographs
from helpers.training.settings import Settings, training_parameters

PROGRESS = "progress.pt"  # of a training under way
RESULTS = (  # of one that is done
    "model.pt",
    "history.csv",
    "predictions.csv",
    "timing.json",
    "metrics.json",
)
PREDICTIONS = ["image_id", "split", "source", "group", "target", "logit", "probability"]
# raised when the same settings and photographs come to train another network than before
TRAINING_VERSION = 2
UNREADABLE = (pickle.UnpicklingError, EOFError, RuntimeError)


def save(content: dict, path: Path) -> None:
    """torch.save, through a file of Python's: it tells why it could not be written."""
    with path.open("wb") as file:
        torch.save(content, file)


# the finished network


def load_checkpoint(
    path: Path,
    device: torch.device,
    *,
    split: pd.DataFrame | None = None,
) -> tuple[AttnVGG, dict]:
    """The network of `model.pt` in evaluation mode on `device`, and its config.

    Args:
        path: the file.
        device: where the network is to compute.
        split: of split.csv, where it is to be the one that the network was trained on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, of another network, or of another split.
    """
    content = read_checkpoint(path)
    config = content["config"]
    kind = config.get("network", "AttnVGG")
    if kind != "AttnVGG":
        raise ValueError(
            f"{path} holds the weights of a {kind} that `fit` was given: build it yourself, and "
            "load them with its load_state_dict(checkpoint.read_checkpoint(path)['state_dict'])"
        )
    try:
        network = AttnVGG(
            config["classes"], attention=config["attention"], dropout=config["dropout"]
        )
        network.load_state_dict(content["state_dict"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold the weights of the network that its config describes, but of "
            "another model: run 04_train.ipynb again"
        ) from error
    if split is not None and config.get("split") != split_key(split):
        raise ValueError(
            f"{path} was trained on another split than split.csv beside it: the network may have "
            "learned from what is test there now. Run 04_train.ipynb again"
        )
    return network.to(device, memory_format=torch.channels_last).eval(), config


def read_checkpoint(path: Path) -> dict:
    """What lies in `model.pt`: `state_dict` and `config`. Raises as `load_checkpoint`."""
    workspace.need(path, "04_train.ipynb")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint: run 04_train.ipynb again"
        ) from error
    config = content.get("config", {}) if isinstance(content, dict) else {}
    version = config.get("format")
    if version != workspace.FORMAT:
        raise ValueError(
            f"{path} has format {version}, not {workspace.FORMAT}: run 04_train.ipynb again"
        )
    return content


def write_results(folder: Path, fitted, predictions: pd.DataFrame, content: dict) -> None:
    """Leave a finished training in the run's folder: the files of RESULTS.

    All are written before the first takes its place, so that they are of one another. The progress
    that a killed run would need goes.

    Args:
        folder: of the run.
        fitted: of `loop.fit`.
        predictions: of `loop.predict_held_out`, with the column `probability`.
        content: of metrics.json, as `metrics.summarise` gives it.
    """
    calibrated = {name: content[name] for name in ("calibration", "threshold")}
    model = {
        "state_dict": fitted.network.state_dict(),
        "config": {**fitted.config, **calibrated},
    }
    with workspace.locked(folder / "results"), ExitStack() as stack:
        beside = {name: stack.enter_context(workspace.replacing(folder / name)) for name in RESULTS}
        save(model, beside["model.pt"])
        fitted.history.to_csv(beside["history.csv"], index=False)
        predictions.to_csv(beside["predictions.csv"], index=False)
        timing = workspace.as_json(fitted.timing)
        beside["timing.json"].write_text(timing, encoding="utf-8")
        beside["metrics.json"].write_text(workspace.as_json(content), encoding="utf-8")
    (folder / PROGRESS).unlink(missing_ok=True)


def read_predictions(folder: Path) -> pd.DataFrame:
    """`predictions.csv` of a run. Raises as `workspace.read_table`."""
    return workspace.read_table(folder / "predictions.csv", "04_train.ipynb", PREDICTIONS)


# what a training follows from


def split_key(split: pd.DataFrame) -> str:
    """A hash of which photograph is on which side."""
    sides = split[["image_id", "split", "kept"]].to_csv(index=False)
    return short_hash(sides.encode())


def weights_key(weights: str) -> str:
    """A hash of the bytes that the parameter `weights` names; "" for "none"."""
    if weights == "none":
        return ""
    if weights == "imagenet":  # torchvision's file carries the hash in its name
        return VGG16_BN_Weights.IMAGENET1K_V1.url.rsplit("-", 1)[1].removesuffix(".pth")
    return short_hash(workspace.resolve(weights).read_bytes())


def network_key(network: nn.Module) -> str:
    """A hash of a network's kind and of all that its state holds."""
    state = hashlib.sha256(type(network).__name__.encode())
    for name, tensor in network.state_dict().items():
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        state.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        state.update(content.numpy())
    return state.hexdigest()[:16]


def short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def facts_of(
    settings: Settings,
    used: pd.DataFrame,
    photographs: Photographs,
    precision: torch.dtype,
    given: nn.Module | None = None,
) -> dict:
    """All that a training follows from, by name.

    Two trainings of equal facts end in the same network, on the CPU bit for bit.

    Args:
        settings: of which `weights` and `device` count as what they lead to, not as they are named.
        used: the rows of `loop.used_rows`.
        photographs: in their order.
        precision: what the setting of this name has come to.
        given: the network to start from, where the caller has brought one.
    """
    return {
        **training_parameters(settings),
        "weights": "" if given is not None else weights_key(settings.weights),
        "network": "" if given is None else network_key(given),
        "device": photographs.device.type,
        "precision": str(precision).removeprefix("torch."),
        "photographs": photographs.key,
        "rows": short_hash(used.to_csv().encode()),
        "torch": str(torch.__version__),
        "training": TRAINING_VERSION,
    }


# the last whole epoch of a training under way


def save_progress(path: Path, facts: dict, state: dict) -> None:
    """Keep `state`, nested dictionaries and lists, of the training of these facts.

    Raises:
        CannotWrite: the disk takes no more.
    """
    with workspace.replacing(path) as beside:
        save({"facts": facts, "state": state}, beside)


def load_progress(path: Path, facts: dict) -> dict | None:
    """What `save_progress` was last given with these facts, on the CPU; None if nothing was."""
    if not path.exists():
        return None
    content = read_progress(path)
    return content["state"] if content.get("facts") == facts else None


def set_aside(path: Path, facts: dict) -> str:
    """Move the progress of another training out of the way of this one's.

    What was moved before comes back where it is of these facts.

    Returns:
        What was done and what differs, in a sentence; "" where nothing had to be.
    """
    kept = beside_progress(path, mark(facts))
    message = ""
    if path.exists():
        content = read_progress(path)
        if content.get("facts") == facts:
            return ""
        place = beside_progress(path, content.get("mark") or mark(content["facts"]))
        os.replace(path, place)
        message = (
            f"{path.name} is of another training ({difference(content.get('facts'), facts)}): it "
            f"is kept as {place.name}, and this training does not go on from it"
        )
    if kept.exists():
        os.replace(kept, path)
    return message


def read_progress(path: Path) -> dict:
    """`facts` and `state` of a file of progress; a `mark` where it is not one of this edition."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE:
        return {"mark": "unreadable"}
    if isinstance(content, dict) and isinstance(content.get("facts"), dict):
        return content
    if isinstance(content, dict) and "key" in content:  # of the first edition
        return {"mark": str(content["key"])[:8]}
    return {"mark": "unknown"}


def mark(facts: dict) -> str:
    """Some letters that stand for these facts in a file's name."""
    return short_hash(repr(sorted(facts.items())).encode())[:8]


def beside_progress(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}{path.suffix}")


def difference(there: dict | None, here: dict) -> str:
    """In what two trainings differ, by name."""
    if there is None:
        return "of an earlier version, or not readable"
    words = [
        f"{name} {there.get(name)!r} there, {value!r} here"
        for name, value in here.items()
        if there.get(name) != value
    ]
    if [name for name in here if there.get(name) != here[name]] == ["epochs"]:
        words.append("for another number of epochs the learning rate takes another course")
    return "; ".join(words)
