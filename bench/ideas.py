"""The networks of `real_photographs.py`: those of the series, and ideas that change one place each.
`mend.py` takes some of the changes, too.

Could attention look at the lesion without masks? Each idea is one guess at what keeps it away.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers import workspace
from helpers.audit.evidence import turn
from helpers.model import POOL3, POOL4, AttnVGG, Output
from helpers.training.batches import Photographs
from helpers.training.loop import Fitted, fit, used_rows
from helpers.training.loss import mask_loss
from helpers.training.settings import Settings


class Candidate(NamedTuple):
    """Parameters of training, changes of the network (`Changed`), and a loss besides.

    `loss` names one of LOSSES and its number: a weight, or a share of the steps.
    """

    settings: dict = {}
    changes: dict = {}
    loss: tuple[str, float] | tuple[()] = ()


DICE = {"attention": "sigmoid", "mask_weight_pool3": 0.1, "mask_weight_pool4": 0.1}
SERIES = {
    "no attention": Candidate({"attention": "none"}),
    "softmax": Candidate(),
    "sigmoid": Candidate({"attention": "sigmoid"}),
    "softmax, cross-entropy": Candidate({"gamma": 0.0}),
    "sigmoid, with masks": Candidate(DICE),
}
IDEAS = {
    "detached guide": Candidate(changes={"detached": True}),
    "attended vectors alone": Candidate({"bypass": False}),
    "attended alone, detached guide": Candidate({"bypass": False}, {"detached": True}),
    "before pooling": Candidate(changes={"before_pooling": True}),
    "mirrored padding": Candidate(changes={"mirrored": True}),
    "same map when turned": Candidate(loss=("turned", 0.1)),
    "same map when turned, weight 1": Candidate(loss=("turned", 1.0)),
    "sigmoid, starts at 0.1": Candidate({"attention": "sigmoid"}, {"start": 0.1}),
    "sigmoid, with Otsu's masks": Candidate({**DICE, "mask_target": "otsu"}),
}
NETWORKS = SERIES | IDEAS


class Changed(AttnVGG):
    """`AttnVGG` with changes that might bring its maps to the lesion; without any it is `AttnVGG`.

    Args:
        detached: the attention blocks read their guide, pool-5, and do not teach it.
        before_pooling: attention looks at the features before pool-3 and pool-4, on maps of twice
            the side.
        mirrored: convolutions see a mirror outside of the photograph, not zeros, by which they
            could tell where its edge is.
        start: about where the values of a sigmoid map begin.
        pool3_alone: the classifier does not see what passes through pool-4's map.
        options: of `AttnVGG`.
    """

    def __init__(
        self,
        *,
        detached: bool = False,
        before_pooling: bool = False,
        mirrored: bool = False,
        start: float = 0.0,
        pool3_alone: bool = False,
        **options,
    ):
        super().__init__(**options)
        self.detached = detached
        self.before_pooling = before_pooling
        self.pool3_alone = pool3_alone
        if pool3_alone:  # and stays so, since what it weighs is 0
            nn.init.zeros_(self.classifier.weight[:, -512:])
        if mirrored:
            for layer in self.backbone:
                if isinstance(layer, nn.Conv2d):
                    layer.padding_mode = "reflect"
        if start:  # scores scatter about the bias
            for block in (self.attention3, self.attention4):
                nn.init.constant_(block.score.bias, np.log(start / (1 - start)))

    def look(self, images: Tensor) -> tuple[Tensor, ...]:
        """pool-5, and of each block its map (None without attention) and its vector."""
        # `model` pools before the last ReLU; a second one changes nothing
        before3 = self.backbone[: POOL3 - 1](images).relu()
        pool3 = self.backbone[POOL3 - 1 : POOL3 + 1](before3)
        before4 = self.backbone[POOL3 + 1 : POOL4 - 1](pool3).relu()
        pool4 = self.backbone[POOL4 - 1 : POOL4 + 1](before4)
        pool5 = self.backbone[POOL4 + 1 :](pool4)
        if self.attention == "none":
            return pool5, None, pool3.mean(dim=(2, 3)), None, pool4.mean(dim=(2, 3))
        guide = pool5.detach() if self.detached else pool5
        local3 = before3 if self.before_pooling else pool3
        local4 = before4 if self.before_pooling else pool4
        return pool5, *self.attention3(local3, guide), *self.attention4(local4, guide)

    def forward(self, images: Tensor) -> Output:
        pool5, map3, vector3, map4, vector4 = self.look(images)
        features = [vector3, vector4 * 0 if self.pool3_alone else vector4]
        if self.bypass:
            features.insert(0, pool5.mean(dim=(2, 3)))
        with torch.autocast(images.device.type, enabled=False):
            logits = self.classifier(self.dropout(torch.cat(features, dim=1).float()))
        return Output(logits, map3, map4)


def make_network(candidate: Candidate, settings: Settings) -> Changed:
    """The candidate's network, drawn from the seed as `fit` would draw an `AttnVGG`."""
    workspace.seed_everything(settings.seed)
    return Changed(
        attention=settings.attention,
        dropout=settings.dropout,
        weights=None if settings.weights == "none" else settings.weights,
        bypass=settings.bypass,
        **candidate.changes,
    )


def train(
    candidate: Candidate, settings: Settings, split: pd.DataFrame, photographs: Photographs
) -> Fitted:
    """The candidate's network, trained as notebook 04 does, with its loss besides."""
    network = make_network(candidate, settings)
    extra_loss = None
    if candidate.loss:
        name, number = candidate.loss
        extra_loss = LOSSES[name](network, number, settings, split, photographs)
    return fit(
        settings,
        split,
        photographs,
        report=lambda line: print("   ", line, flush=True),
        network=network,
        extra_loss=extra_loss,
    )


def exchanged_loss(network: Changed, weight: float, *_) -> Callable:
    """An `extra_loss`: with the maps of the next photograph of the batch nothing should be known.

    The cross-entropy of the answer that it then gives and a coin, less the coin's own, a mean over
    the batch, times `weight`. 0 where the answer is one half. For a network without the bypass.
    """
    blocks = (network.attention3, network.attention4)
    looked = {}
    for block in blocks:  # local features of the pass whose output the loss gets
        block.register_forward_hook(lambda block, given, made: looked.update({block: given[0]}))

    def loss(output: Output, batch) -> Tensor:
        vectors = []
        for block, own in zip(blocks, output[1:], strict=True):
            shares = block.shares(own.roll(1, dims=0))
            vectors.append((shares * looked[block].float()).sum(dim=(2, 3)))  # [B, C]
        logits = network.classifier(torch.cat(vectors, dim=1))
        coin = torch.full_like(logits, 0.5)
        surprise = functional.binary_cross_entropy_with_logits(logits, coin)
        return weight * (surprise - np.log(2))

    return loss


def taught_at_first(
    network: Changed, share: float, settings: Settings, split: pd.DataFrame, *_
) -> Callable:
    """An `extra_loss` that takes the masks' term off the loss again after a share of the steps."""
    rows = (used_rows(split)["split"] == "train").sum()
    last = round(share * settings.epochs * math.ceil(rows / settings.batch_size))
    seen = 0

    def loss(output: Output, batch) -> Tensor:
        nonlocal seen
        seen += 1
        if seen <= last:
            return output.logits.new_zeros(())
        return -mask_loss(output[1:], batch.masks, batch.masked, settings.mask_weights)

    return loss


def turned_loss(
    network: Changed,
    weight: float,
    settings: Settings,
    split: pd.DataFrame,
    photographs: Photographs,
) -> Callable:
    """An `extra_loss` for `fit`: a photograph turned should have its map turned.

    The distance (half of the sum of |a - a'|) between a softmax map and that of the photograph
    turned, turned back; for every second photograph of a batch, a mean over these, times `weight`.
    """
    precision = workspace.choose_precision(photographs.device, settings.precision)
    half = precision != torch.float32

    def loss(output: Output, batch) -> Tensor:
        number = int(torch.randint(1, 8, ()))  # one of the seven turns and flips
        images = turn(batch.images[::2], number)
        with torch.autocast(images.device.type, dtype=precision, enabled=half):
            _, other3, _, other4, _ = network.look(images)
        distance3 = distance(output.pool3_map[::2], turn(other3, number, back=True))
        distance4 = distance(output.pool4_map[::2], turn(other4, number, back=True))
        return weight * (distance3 + distance4)

    return loss


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Half of the sum of |a - a'| of two maps [B, 1, H, W], a mean over B: 0 alike, 1 apart."""
    return (first - second).abs().sum(dim=(1, 2, 3)).mean() / 2


# by name, what makes the `extra_loss` of a `Candidate` from its network, number, settings, split
# and photographs
LOSSES = {"turned": turned_loss, "exchanged": exchanged_loss, "taught": taught_at_first}
