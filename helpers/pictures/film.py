"""The maps of a few photographs after each epoch of a training: how attention comes about.

Notebook 04 takes the film while it trains, for notebook 05, which shows it.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from helpers import workspace
from helpers.model import AttnVGG
from helpers.pictures.maps import (
    SHARE,
    draw_outlines,
    draw_rows,
    evaluate,
    grid_figure,
    min_max,
    overlay,
    upsample,
)
from helpers.training.augment import denormalise
from helpers.training.batches import Photographs
from helpers.training.checkpoint import mark
from helpers.training.loop import AfterEpoch

FILE = "film.npz"  # in the run's folder
EACH = 8  # photographs of each class
PANEL = 0.95  # inches a side


class Film(NamedTuple):
    """Maps of N photographs after E epochs, as the network made them."""

    rows: np.ndarray  # [N], of the cache; melanomas first
    epochs: np.ndarray  # [E], in order
    pool3: Tensor  # [E, N, 1, h, w]
    pool4: Tensor  # [E, N, 1, h, w]


def camera(path: Path, photographs: Photographs, used: pd.DataFrame, seed: int) -> AfterEpoch:
    """What `loop.fit` calls after each epoch, to take the film of a training.

    It takes EACH melanomas and EACH benign lesions of validation, drawn by seed, in evaluation
    mode. A training that goes on goes on with its film. Without attention there is none.

    Args:
        path: of the film; written after each epoch, so that a killed training leaves what it had.
        photographs: the cache.
        used: its rows.
        seed: of the draw.
    """
    drawn = [draw_rows(used, "val", target, EACH, seed) for target in (1, 0)]
    rows = np.concatenate(drawn)

    def take(epoch: int, network: AttnVGG, config: dict) -> None:
        output = evaluate(network, photographs, rows, config)
        if output.pool3_map is None:
            return
        film = Film(rows, np.array([epoch]), output.pool3_map[None], output.pool4_map[None])
        before = read(path, config) if epoch > 1 else None
        if before is not None and np.array_equal(before.rows, rows):
            film = join(before, film)
        with workspace.replacing(path) as beside, beside.open("wb") as file:
            content = {name: np.asarray(part) for name, part in film._asdict().items()}
            np.savez_compressed(file, **content, training=mark(config["made_from"]))

    return take


def join(before: Film, after: Film) -> Film:
    """A film with a further epoch; one that it had from there on is another training's end."""
    kept = before.epochs < after.epochs[0]
    return Film(
        before.rows,
        np.concatenate([before.epochs[kept], after.epochs]),
        torch.cat([before.pool3[kept], after.pool3]),
        torch.cat([before.pool4[kept], after.pool4]),
    )


def read(path: Path, config: dict) -> Film | None:
    """The film of a training; None where there is none, or it is another training's.

    Args:
        path: of the film.
        config: of model.pt of that training.
    """
    if not path.is_file() or "made_from" not in config:
        return None
    try:
        with np.load(path) as content:
            if content["training"] != mark(config["made_from"]):
                return None
            maps = [torch.from_numpy(content[name]) for name in ("pool3", "pool4")]
            return Film(content["rows"], content["epochs"], *maps)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile):
        return None  # damaged, or of another edition


def figure(
    reel: Film,
    pool: str,
    photographs: Photographs,
    used: pd.DataFrame,
    config: dict,
    *,
    each: int = 2,
    scenes: int = 6,
) -> Figure:
    """Photographs under their maps, a row a photograph and a column an epoch.

    Each map is stretched from its own min to its own max, and covers the photograph the more the
    larger it is; the lesion's outline is drawn where there is a mask.

    Args:
        reel: what was taken.
        pool: "pool-3" or "pool-4".
        photographs: the cache.
        used: its rows.
        config: of model.pt of that training.
        each: photographs of each class.
        scenes: epochs at most, evenly over the training, with the first and the last.

    Raises:
        ValueError: another word for the pool.
    """
    pools = {"pool-3": reel.pool3, "pool-4": reel.pool4}
    if pool not in pools:
        raise ValueError(f"pool is one of {', '.join(map(repr, pools))}, not {pool!r}")
    maps = pools[pool]
    targets = used["target"].to_numpy()[reel.rows]
    actors = np.concatenate([np.flatnonzero(targets == target)[:each] for target in (1, 0)])
    epochs = np.unique(np.linspace(0, len(reel.epochs) - 1, scenes).round().astype(int))
    images, masks = photographs.evaluation(reel.rows[actors], config)
    shown = denormalise(images, mean=config["mean"], std=config["std"])  # [n, S, S, 3]
    rows = {}
    for number, actor in enumerate(actors):
        kind = "melanoma" if targets[actor] else "benign"
        grids = min_max(upsample(maps[epochs, actor], shown.shape[1:3]))
        repeated = shown[[number] * len(epochs)]  # the same in every epoch
        before = (targets[actors[:number]] == targets[actor]).sum()  # of its class
        name = f"{kind} {before + 1}"
        rows[name] = overlay(repeated, grids, share=SHARE, follow_map=True)
    titles = [f"epoch {epoch}" for epoch in reel.epochs[epochs]]
    drawing = grid_figure(rows, titles, panel=PANEL)
    if masks is not None:
        panels = np.reshape(drawing.axes, (len(rows), len(titles)))
        for line, mask in zip(panels, masks.cpu(), strict=True):
            draw_outlines(line, mask.expand(len(titles), 1, -1, -1), PANEL)
    drawing.suptitle(f"The film of {pool}: the same photographs after each epoch")
    return drawing
