"""What training keeps on disk: the network when it is done, and until then its last whole epoch, for a killed run."""

import dataclasses
import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import torch

from helpers import workspace
from helpers.model import AttnVGG
from helpers.training.batches import Photographs
from helpers.training.settings import Settings

PROGRESS = "progress.pt"  # of a training under way
RESULTS = (
    "model.pt",
    "history.csv",
    "predictions.csv",
    "timing.json",
    "metrics.json",
)  # of one that is done
PREDICTIONS = ["image_id", "split", "source", "group", "target", "logit", "probability"]
SHAPING = (
    "batches",
    "distributed",
    "loss",
    "model",
    "recipes",
    "train",
)  # modules whose change changes a training


def save(content: dict, path: Path) -> None:
    """torch.save into a file of Python's, which tells why it could not be written; torch's own does not."""
    with path.open("wb") as file:
        torch.save(content, file)


def load_checkpoint(
    path: Path, device: torch.device, *, split: pd.DataFrame | None = None
) -> tuple[AttnVGG, dict]:
    """The network of `model.pt` in evaluation mode on `device`, and its config; no pickled code is ever run.

    split: of split.csv, where it is to be the one that the network was trained on. Raises FileNotFoundError that names
    04_train.ipynb, and ValueError for a file that is not such a checkpoint, or of another split.
    """
    try:
        content = torch.load(
            workspace.need(path, "04_train.ipynb"), map_location="cpu", weights_only=True
        )
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint: run 04_train.ipynb again"
        ) from error
    config = content.get("config", {}) if isinstance(content, dict) else {}
    if config.get("format") != workspace.FORMAT:
        raise ValueError(
            f"{path} has format {config.get('format')}, not {workspace.FORMAT}: run 04_train.ipynb again"
        )
    try:
        network = AttnVGG(
            config["classes"], attention=config["attention"], dropout=config["dropout"]
        )
        network.load_state_dict(content["state_dict"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold the weights of the network that its config describes, but of another "
            "model: run 04_train.ipynb again"
        ) from error
    if split is not None and config.get("split") != split_key(split):
        raise ValueError(
            f"{path} was trained on another split than split.csv beside it: the network may have learned "
            "from what is test there now. Run 04_train.ipynb again"
        )
    return network.to(device, memory_format=torch.channels_last).eval(), config


def split_key(split: pd.DataFrame) -> str:
    """A hash of which photograph is on which side."""
    return hashlib.sha256(
        split[["image_id", "split", "kept"]].to_csv(index=False).encode()
    ).hexdigest()[:16]


def write_results(folder: Path, fitted, predictions: pd.DataFrame, content: dict) -> None:
    """Leave a finished training in the run's folder: model.pt, history.csv, predictions.csv, timing.json, metrics.json.

    fitted: of `train.fit`. content: of metrics.json, as `metrics.summarise` gives it. All five are written before the
    first takes its place, so that they are of one another. The progress that a killed run would need goes.
    """
    config = {
        **fitted.config,
        "calibration": content["calibration"],
        "threshold": content["threshold"],
    }
    with workspace.locked(folder / "results"), ExitStack() as stack:
        beside = [stack.enter_context(workspace.replacing(folder / name)) for name in RESULTS]
        model, history, held_out, timing, metrics = beside
        save({"state_dict": fitted.network.state_dict(), "config": config}, model)
        fitted.history.to_csv(history, index=False)
        predictions.to_csv(held_out, index=False)
        timing.write_text(workspace.as_json(fitted.timing), encoding="utf-8")
        metrics.write_text(workspace.as_json(content), encoding="utf-8")
    (folder / PROGRESS).unlink(missing_ok=True)


def read_predictions(folder: Path) -> pd.DataFrame:
    """`predictions.csv` of a run. Raises as `workspace.read_table`."""
    return workspace.read_table(folder / "predictions.csv", "04_train.ipynb", PREDICTIONS)


def training_key(
    settings: Settings, used: pd.DataFrame, photographs: Photographs, precision: torch.dtype
) -> str:
    """A hash of all that a training follows from: two of one key end in the same network, on the CPU bit for bit."""
    chosen = {
        **dataclasses.asdict(settings),
        "device": photographs.device.type,
        "precision": str(precision),
    }
    recipe = [workspace.FORMAT, torch.__version__, chosen, photographs.key, used.to_csv()]
    recipe += [
        Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in SHAPING
    ]
    return hashlib.sha256(repr(recipe).encode()).hexdigest()


class Progress:
    """The last whole epoch of a training under way, in one file; `key` says what it belongs to.

    A thread writes while the next epoch trains. With None for the file nothing is kept.
    """

    writer = ThreadPoolExecutor(1)  # one for all: who reads waits for what is still being written

    def __init__(self, path: Path | None, key: str):
        self.path, self.key, self.pending = path, key, self.writer.submit(int)

    def load(self) -> dict | None:
        """What `save` was last given under this key, on the CPU; None where there is none, or it is not readable."""
        self.pending.result()
        if self.path is None or not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, EOFError, RuntimeError):
            return None
        return (
            content["state"]
            if isinstance(content, dict) and content.get("key") == self.key
            else None
        )

    def save(self, state: dict) -> None:
        """Keep a copy of `state`, nested dictionaries and lists. Raises OSError where the last could not be written."""
        if self.path is not None:
            self.pending.result()
            self.pending = self.writer.submit(self._write, copied(state))

    def close(self) -> None:
        """Wait for what is being written. Raises OSError where it could not be."""
        self.pending.result()

    def _write(self, state: dict) -> None:
        with workspace.replacing(self.path) as beside:
            save({"key": self.key, "state": state}, beside)


def copied(value):
    """The same nest of dictionaries and lists with every tensor cloned, so that training may go on changing its own."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: copied(one) for name, one in value.items()}
    return [copied(one) for one in value] if isinstance(value, list) else value
