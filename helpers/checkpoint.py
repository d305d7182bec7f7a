"""What training keeps on disk: the network when it is done, and until then its last whole epoch, for a killed run."""

import dataclasses
import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch

from helpers import workspace
from helpers.batches import Photographs
from helpers.model import AttnVGG
from helpers.recipes import Settings

SHAPING = ("batches", "distributed", "loss", "model", "recipes", "train")  # modules whose change changes a training


def save_checkpoint(path: Path, network: AttnVGG, config: dict) -> None:
    """Write `model.pt`, whole or not at all."""
    with workspace.replacing(path) as beside:
        torch.save({"state_dict": network.state_dict(), "config": config}, beside)


def load_checkpoint(path: Path, device: torch.device) -> tuple[AttnVGG, dict]:
    """The network of `model.pt` in evaluation mode on `device`, and its config; no pickled code is ever run.

    Raises FileNotFoundError that names 04_train.ipynb, and ValueError for a file that is not such a checkpoint.
    """
    try:
        content = torch.load(workspace.need(path, "04_train.ipynb"), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: run 04_train.ipynb again") from error
    config = content.get("config", {}) if isinstance(content, dict) else {}
    if config.get("format") != workspace.FORMAT:
        raise ValueError(f"{path} has format {config.get('format')}, not {workspace.FORMAT}: run 04_train.ipynb again")
    network = AttnVGG(config["classes"], attention=config["attention"], dropout=config["dropout"])
    network.load_state_dict(content["state_dict"])
    return network.to(device, memory_format=torch.channels_last).eval(), config


def training_key(settings: Settings, used: pd.DataFrame, photographs: Photographs, precision: torch.dtype) -> str:
    """A hash of all that a training follows from: two of one key end in the same network, on the CPU bit for bit."""
    chosen = {**dataclasses.asdict(settings), "device": photographs.device.type, "precision": str(precision)}
    recipe = [workspace.FORMAT, torch.__version__, chosen, photographs.key, used.to_csv()]
    recipe += [Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in SHAPING]
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
        return content["state"] if isinstance(content, dict) and content.get("key") == self.key else None

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
            torch.save({"key": self.key, "state": state}, beside)


def copied(value):
    """The same nest of dictionaries and lists with every tensor cloned, so that training may go on changing its own."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: copied(one) for name, one in value.items()}
    return [copied(one) for one in value] if isinstance(value, list) else value
