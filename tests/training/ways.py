"""What one process, or each of several that torchrun starts, trains on its share; the test's own
process is one.

    torchrun --standalone --nproc-per-node 2 tests/training/ways.py CACHE SPLIT FOLDER

CACHE is the content of cache.json, SPLIT a split.csv; FOLDER takes a file for each of WAYS and
process.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers.model import AttnVGG
from helpers.training import loop, processes
from helpers.training.batches import Photographs
from helpers.training.settings import Settings

MASKED = {"attention": "sigmoid", "mask_weight_pool3": 0.1, "mask_weight_pool4": 0.2}


class Way(NamedTuple):
    """How to train."""

    epochs: int
    chosen: dict  # settings
    frozen: bool = False  # batch norm keeps its first statistics
    extra: bool = False  # a loss besides


WAYS = {
    "frozen": Way(2, MASKED, frozen=True),
    "extra": Way(1, {"attention": "softmax"}, frozen=True, extra=True),
    "live": Way(2, MASKED),
}


def settings_of(way: Way) -> Settings:
    """Thirteen photographs a batch do not part into equal shares."""
    return Settings(
        image_size=32,
        epochs=way.epochs,
        batch_size=13,
        precision="fp32",
        recipe="paper",
        learning_rate=1e-3,
        device="cpu",
        **way.chosen,
    )


def squares(output: NamedTuple, batch: object) -> torch.Tensor:
    """A loss besides, as a sum over this process's share."""
    return output.logits.square().sum() / batch.size


def keep_frozen(norm: nn.BatchNorm2d, mode: bool = True) -> nn.Module:
    """In place of BatchNorm2d.train."""
    return nn.Module.train(norm, False)


def train(way: Way, cache: dict, split: pd.DataFrame) -> dict:
    """Logits of validation by an untrained network, and what a training leaves and has seen."""
    settings = settings_of(way)
    photographs = Photographs(cache, torch.device("cpu"))
    torch.manual_seed(0)
    network = AttnVGG(attention=settings.attention)
    val = np.flatnonzero(loop.used_rows(split)["split"] == "val")
    config = {"view": 1.0, "image_size": settings.image_size, "mean": (0, 0, 0), "std": (1, 1, 1)}
    own = processes.share(len(val))
    logits = torch.zeros(len(val))
    logits[own] = loop.predict(network, photographs, val[own], config, torch.float32)
    logits = processes.total(logits)

    seen = []
    stream = photographs.stream

    def watched(batches):
        seen.append(np.concatenate(batches).tolist())
        return stream(batches)

    photographs.stream = watched
    extra_loss = squares if way.extra else None
    norm = keep_frozen if way.frozen else nn.BatchNorm2d.train
    with mock.patch.object(nn.BatchNorm2d, "train", norm):
        fitted = loop.fit(settings, split, photographs, report=str, extra_loss=extra_loss)
    return {
        "logits": logits,
        "state": fitted.network.state_dict(),
        "seen": seen[::2],  # validation comes after each epoch
        "history": fitted.history.to_dict("list"),
    }


def main() -> None:
    cache = json.loads(sys.argv[1])
    split = pd.read_csv(sys.argv[2], keep_default_na=False)
    with processes.started("cpu"):
        for name, way in WAYS.items():
            left = train(way, cache, split)
            torch.save(left, Path(sys.argv[3]) / f"{name}.{processes.place()[0]}")


if __name__ == "__main__":
    main()
