"""What training keeps on disk: the network when it is done, and until then its last whole epoch.

A killed run goes on from that epoch. No code that lies in a file is ever run.
"""

import hashlib
import itertools
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
from helpers.photographs.split import read_split
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
OF_A_NETWORK = (  # what the parts after 04 make of it, in the run's folder
    "audit.json",
    "evidence.json",
    "mend.json",
    "mended/*",
    "0[5678]_*.ipynb",
    "figures/attention_*.png",
    "figures/audit_*.png",
    "figures/before_and_after.png",
    "figures/claims*.png",
    "figures/deletion_insertion.png",
    "figures/evidence_*.png",
    "figures/explorer.png",
    "figures/forgotten_*.png",
    "figures/gallery.png",
    "figures/hidden.png",
    "figures/make_it_yours_resnet.png",
    "figures/own_photograph.png",
    "figures/turned_*.png",
)
PREDICTIONS = ["image_id", "split", "source", "group", "target", "logit", "probability"]
# raised when the same settings and photographs come to train another network than before
TRAINING_VERSION = 5
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
    photographs: Photographs | None = None,
) -> tuple[AttnVGG, dict]:
    """The network of `model.pt` in evaluation mode on `device`, and its config.

    Args:
        path: the file.
        device: where the network is to compute.
        split: of split.csv, where it is to be the one that the network was trained on.
        photographs: the same of the cache.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, of another network, of another split, or of other
            photographs.
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
            config["classes"],
            attention=config["attention"],
            dropout=config["dropout"],
            bypass=config.get("bypass", True),  # not in a file of the first edition
        )
        network.load_state_dict(content["state_dict"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold the weights of the network that its config describes, but of "
            "another model: run 04_train.ipynb again"
        ) from error
    other = misfit(config, split, photographs)
    if other:
        raise ValueError(f"{path} was trained on {other}. Run 04_train.ipynb again")
    return network.to(device, memory_format=torch.channels_last).eval(), config


def misfit(config: dict, split: pd.DataFrame | None, photographs: Photographs | None) -> str:
    """What a network was trained on, if it is something else than this; else "".

    Args:
        config: of model.pt.
        split: of split.csv; None is not compared.
        photographs: of the cache; None is not compared.
    """
    made_from = config.get("made_from", {})  # not in a file of the first edition
    if split is not None and config.get("split") != split_key(split):
        return (
            "another split than split.csv beside it: the network may have learned from what is "
            "test there now"
        )
    if split is not None and made_from.get("rows", rows_key(split)) != rows_key(split):
        return "other targets, groups or names of masks than split.csv beside it has"
    if photographs is not None and made_from.get("photographs", photographs.key) != photographs.key:
        return (
            "other photographs, masks or colours than cache.json beside it names, another table, "
            f"or photographs of another size (its image_size is {config['image_size']}): 01 or 02 "
            "has run again since"
        )
    return ""


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

    All are written before the first takes its place, so that they are of one another: model.pt
    knows the others by their bytes. What later parts made of another network goes into a folder of
    its own, and the progress that a killed run would need goes.

    Args:
        folder: of the run.
        fitted: of `loop.fit`.
        predictions: of `loop.predict_held_out`, with the column `probability`.
        content: of metrics.json, as `metrics.summarise` gives it.
    """
    key = network_key(fitted.network)
    calibrated = {name: content[name] for name in ("calibration", "threshold")}
    with workspace.locked(folder / "results"), ExitStack() as stack:
        beside = {name: stack.enter_context(workspace.replacing(folder / name)) for name in RESULTS}
        fitted.history.to_csv(beside["history.csv"], index=False)
        predictions.to_csv(beside["predictions.csv"], index=False)
        for name, of_network in (("timing.json", fitted.timing), ("metrics.json", content)):
            text = workspace.as_json({**of_network, "network_key": key})
            beside[name].write_text(text, encoding="utf-8")
        results = {name: short_hash(beside[name].read_bytes()) for name in RESULTS[1:]}
        config = {**fitted.config, **calibrated, "network_key": key, "results": results}
        save({"state_dict": fitted.network.state_dict(), "config": config}, beside["model.pt"])
        set_aside_results(folder, key)
    (folder / PROGRESS).unlink(missing_ok=True)


def set_aside_results(folder: Path, key: str) -> None:
    """Move what was made of the network that lies in a run, unless that is the one of this key.

    It goes into a new folder, `of-network-<key>/` (with a number, where there is one), and a line
    is printed; the notebooks that made it stand there, too, where they were stored in the run.
    """
    left = sorted(path for pattern in OF_A_NETWORK for path in folder.glob(pattern))
    if not left:
        return
    try:
        content = read_checkpoint(folder / "model.pt")
        before = state_key(content["config"].get("network", "AttnVGG"), content["state_dict"])
    except (FileNotFoundError, KeyError, ValueError):
        before = "unknown"
    if before == key:
        return
    aside = folder / f"of-network-{before}"
    numbers = itertools.count(2)
    while aside.exists():  # keeps what was moved before
        aside = folder / f"of-network-{before}-{next(numbers)}"
    for path in left:
        place = aside / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
    print(
        f"{left[0].name} and what else was made of the network before this one, {len(left)} files, "
        f"lie in {aside.name} now: 05_visualize_attention, 06_audit, 07_evidence and 08_mend make "
        "theirs of this one"
    )


def read_predictions(folder: Path) -> pd.DataFrame:
    """`predictions.csv` of a run.

    Raises:
        FileNotFoundError: it or model.pt is not there.
        ValueError: it is not of this model.pt, or as `workspace.read_table`.
    """
    check_result(folder, "predictions.csv")
    return workspace.read_table(folder / "predictions.csv", "04_train.ipynb", PREDICTIONS)


def read_metrics(folder: Path) -> dict:
    """`metrics.json` of a run. Raises as `read_predictions`."""
    check_result(folder, "metrics.json")
    return workspace.read_json(folder / "metrics.json", "04_train.ipynb")


def check_result(folder: Path, name: str) -> None:
    """Raises ValueError unless a file of RESULTS is the one that was left with model.pt."""
    path = workspace.need(folder / name, "04_train.ipynb")
    config = read_checkpoint(folder / "model.pt")["config"]
    known = config.get("results", {}).get(name)  # not in a file of an earlier edition
    if known is not None and short_hash(path.read_bytes()) != known:
        raise ValueError(
            f"{path} is not what was left with model.pt beside it: it is of another network, or "
            "was changed by hand. Put the one back that was, or run 04_train.ipynb again"
        )


def say_what_no_longer_fits(folder: Path) -> None:
    """Print that the network in a run was trained on another split or cache than lie there now."""
    try:
        config = read_checkpoint(folder / "model.pt")["config"]
        split = read_split(folder / "split.csv")
    except (FileNotFoundError, ValueError):
        return
    cache = workspace.read_json(folder / "cache.json", "02_preprocess.ipynb")
    other = misfit(config, split, Photographs(cache, torch.device("cpu")))
    if other:
        print(
            f"model.pt, predictions.csv, metrics.json and what rests on them in {folder} are of "
            f"{other}. Run 04_train.ipynb again, and those after it"
        )


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


def rows_key(split: pd.DataFrame) -> str:
    """A hash of all that split.csv says of the rows in the cache."""
    used = split[split["kept"] == 1].reset_index(drop=True)
    return short_hash(used.to_csv().encode())


def network_key(network: nn.Module) -> str:
    """A hash of a network's kind and of all that its state holds."""
    return state_key(type(network).__name__, network.state_dict())


def state_key(kind: str, state: dict[str, torch.Tensor]) -> str:
    """`network_key` of the network of this kind that has this state."""
    key = hashlib.sha256(kind.encode())
    for name, tensor in state.items():
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        key.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        key.update(content.numpy())
    return key.hexdigest()[:16]


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
        "rows": rows_key(used),
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
