"""The losses of notebook 04: focal loss, and the Dice terms that put attention maps on a mask.

Focal loss: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017, arXiv 1708.02002). Dice term: Yan, Kawahara
and Hamarneh, "Melanoma Recognition via Visual Attention" (IPMI 2019).
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
    """Lin's focal loss of a binary classifier: `-alpha_t (1 - p_t)^gamma log p_t`.

    logits, targets: the same shape, targets 0 or 1 as floats. alpha weighs the positive class and 1 - alpha the
    negative; a negative alpha weighs neither. gamma 0 without alpha is cross-entropy. reduction: "mean", "sum", "none".
    Raises ValueError for shapes that differ ([B, 1] against [B] would broadcast to [B, B]) and for other values.
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
    loss = -functional.logsigmoid(signed) * (gamma * functional.logsigmoid(-signed)).exp()
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    if reduction == "none":
        return loss
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    return loss.mean() if reduction == "mean" else loss.sum()


def dice_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """Soft Dice loss of each map, `1 - 2 |a m| / (|a| + |m|)`: 0 where map and mask agree, 1 where they do not meet.

    maps: [B, 1, h, w], 0 to 1 (sigmoid attention). masks: [B, 1, H, W], 0 to 1, averaged down to the map's size.
    Returns [B].
    """
    masks = functional.adaptive_avg_pool2d(masks, maps.shape[-2:])  # [B, 1, h, w]
    both = (maps * masks).sum(dim=(1, 2, 3))
    return 1 - (2 * both + 1e-6) / (maps.sum(dim=(1, 2, 3)) + masks.sum(dim=(1, 2, 3)) + 1e-6)


def mask_loss(
    maps: Sequence[Tensor], masks: Tensor, masked: Tensor, weights: Sequence[float]
) -> Tensor:
    """The Dice terms of several maps, weighted and added, and averaged over the photographs that have a mask.

    maps: of [B, 1, h, w] each. masks: [B, 1, H, W], 0 to 1. masked: [B], 1 where there is a mask, else 0.
    """
    terms = sum(
        weight * dice_loss(one, masks) for weight, one in zip(weights, maps, strict=True)
    )  # [B]
    return (terms * masked).sum() / masked.sum().clamp(min=1)
