"""The losses of notebook 04: focal loss, and the Dice terms that put attention maps on a mask.

Focal loss: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017, arXiv 1708.02002). Dice
term: Yan, Kawahara and Hamarneh, "Melanoma Recognition via Visual Attention" (IPMI 2019).
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float = -1.0,
    gamma: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    r"""Lin's focal loss of a binary classifier, in which easy examples count for little.

    .. math:: -\alpha_t (1 - p_t)^\gamma \log p_t

    with p_t the probability that the network gives to the true class.

    Args:
        logits: of any shape.
        targets: the same shape, 0 or 1 as floats.
        alpha: weight of the positive class, 1 - alpha that of the negative; negative: neither.
        gamma: how much easy examples are weighed down; 0, without alpha, is cross-entropy.
        reduction: "mean", "sum" or "none".

    Returns:
        One number, or with "none" a tensor of the shape of the logits.

    Raises:
        ValueError: the shapes differ ([B, 1] against [B] would broadcast to [B, B]), or another
            argument is out of range.

    >>> import torch
    >>> focal_loss(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]), reduction="none")
    tensor([0.1733, 0.0227])
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"logits {list(logits.shape)} and targets {list(targets.shape)} must have one shape"
        )
    if alpha > 1 or gamma < 0:
        raise ValueError(
            f"alpha is at most 1 (negative: none) and gamma at least 0, not {alpha} and {gamma}"
        )
    signed = logits * (2 * targets - 1)  # p_t = sigmoid(signed)
    modulation = (gamma * functional.logsigmoid(-signed)).exp()  # (1 - p_t)^gamma
    loss = -functional.logsigmoid(signed) * modulation
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")


def dice_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """Soft Dice loss of each map: 0 where map and mask agree, 1 where they do not meet.

    `1 - 2 |a m| / (|a| + |m|)`, as Yan et al. put it on the maps.

    Args:
        maps: [B, 1, h, w], 0 to 1 (sigmoid attention).
        masks: [B, 1, H, W], 0 to 1, averaged down to the map's size.

    Returns:
        [B].

    >>> import torch
    >>> left = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    >>> dice_loss(left, left).item(), round(dice_loss(left, 1 - left).item(), 3)
    (0.0, 1.0)
    """
    masks = functional.adaptive_avg_pool2d(masks, maps.shape[-2:])  # [B, 1, h, w]
    both = (maps * masks).sum(dim=(1, 2, 3))
    either = maps.sum(dim=(1, 2, 3)) + masks.sum(dim=(1, 2, 3))
    return 1 - (2 * both + 1e-6) / (either + 1e-6)


def mask_loss(
    maps: Sequence[Tensor],
    masks: Tensor,
    masked: Tensor,
    weights: Sequence[float],
    *,
    reduction: str = "mean",
) -> Tensor:
    """The Dice terms of several maps, weighted and added, over the photographs that have a mask.

    Args:
        maps: of [B, 1, h, w] each.
        masks: [B, 1, H, W], 0 to 1.
        masked: [B], 1 where there is a mask, else 0.
        weights: one for each map.
        reduction: "mean" (of those with a mask; 0 if there are none) or "sum".
    """
    terms = 0
    for weight, one_map in zip(weights, maps, strict=True):
        terms = terms + weight * dice_loss(one_map, masks)  # [B]
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is 'mean' or 'sum', not {reduction!r}")
    loss = (terms * masked).sum()
    if reduction == "mean":
        loss = loss / masked.sum().clamp(min=1)
    return loss
