"""Focal loss against torchvision's and cross-entropy, the Dice term against a plain loop."""

import math

import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from helpers.training.loss import dice_loss, focal_loss, mask_loss


def examples(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that need a gradient and targets, float64."""
    generator = torch.Generator().manual_seed(sum(shape))
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(2, shape, generator=generator).double()


# focal loss


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.25, 0.5, 1.0])
def test_focal_loss_and_its_gradient_equal_torchvisions(alpha, gamma, reduction):
    for shape in [(1,), (7,), (1, 1), (5, 3)]:
        logits, targets = examples(*shape)
        ours = focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction=reduction)
        theirs = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction=reduction)
        assert ours.shape == (shape if reduction == "none" else ())
        torch.testing.assert_close(ours, theirs)
        gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (ours, theirs)]
        torch.testing.assert_close(*gradients)


def test_the_defaults_are_lins_gamma_without_alpha_averaged():
    logits, targets = examples(9)
    torch.testing.assert_close(
        focal_loss(logits, targets), sigmoid_focal_loss(logits, targets, -1, 2, "mean")
    )


def test_focal_loss_equals_its_formula():
    for logit, target, alpha, gamma in [
        (0.7, 1.0, 0.25, 2.0),
        (0.7, 0.0, 0.25, 2.0),
        (-2.0, 1.0, 0.9, 3.5),
    ]:
        p = 1 / (1 + math.exp(-logit))
        p_t, alpha_t = (p, alpha) if target else (1 - p, 1 - alpha)
        loss = focal_loss(torch.tensor([logit]), torch.tensor([target]), alpha=alpha, gamma=gamma)
        assert loss.item() == pytest.approx(-alpha_t * (1 - p_t) ** gamma * math.log(p_t), rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gamma_0_is_cross_entropy(reduction):
    logits, targets = examples(11)
    torch.testing.assert_close(
        focal_loss(logits, targets, gamma=0, reduction=reduction),
        functional.binary_cross_entropy_with_logits(logits, targets, reduction=reduction),
    )


def test_the_tutorials_quarter_only_scales_where_lins_alpha_weighs_the_classes():
    logits, targets = examples(40)
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    tutorials = (0.25 * (1 - torch.exp(-entropy)) ** 2 * entropy).mean()
    ours = focal_loss(logits, targets)
    torch.testing.assert_close(tutorials, 0.25 * ours)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, logits)[0] for loss in (4 * tutorials, ours))
    )
    each = focal_loss(logits, targets, reduction="none")
    weighed = focal_loss(logits, targets, alpha=0.25, reduction="none")
    torch.testing.assert_close(weighed, torch.where(targets == 1, 0.25, 0.75) * each)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_stay_finite(dtype, gamma):
    values = torch.tensor([-1e4, -100.0, -30.0, 0.0, 30.0, 100.0, 1e4], dtype=dtype)
    for target in (0.0, 1.0):
        logits = values.clone().requires_grad_()
        loss = focal_loss(logits, torch.full_like(logits, target), gamma=gamma, reduction="none")
        loss.sum().backward()
        assert loss.isfinite().all() and logits.grad.isfinite().all()
        surely_right, surely_wrong = (0, -1) if target == 0 else (-1, 0)
        assert loss[surely_right] == 0 and logits.grad[surely_right] == 0
        assert loss[surely_wrong].item() == pytest.approx(1e4, rel=0.01)
        assert logits.grad[surely_wrong] == (
            1 if target == 0 else -1
        )  # the pull back is never lost


@pytest.mark.parametrize(
    "one, other", [((4, 1), (4,)), ((4,), (4, 1)), ((1,), (4,)), ((4, 3), (3, 4))]
)
def test_shapes_that_would_broadcast_are_refused(one, other):
    with pytest.raises(ValueError, match="must have one shape") as raised:
        focal_loss(torch.zeros(one), torch.zeros(other))
    assert str(list(one)) in str(raised.value) and str(list(other)) in str(raised.value)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"alpha": 1.5}, "alpha is at most 1"),
        ({"gamma": -0.5}, "gamma at least 0, not -1.0 and -0.5"),
        ({"reduction": "average"}, "'mean', 'sum' or 'none', not 'average'"),
    ],
)
def test_values_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        focal_loss(torch.zeros(2), torch.zeros(2), **wrong)


# the Dice term


def plain_dice(found: list[list[float]], mask: list[list[float]]) -> float:
    """`1 - 2 |a m| / (|a| + |m|)` of one map and one mask.

    The mask is averaged over the pixels that each cell of the map touches.
    """
    h, w, H, W = len(found), len(found[0]), len(mask), len(mask[0])
    both = total = 0.0
    for i in range(h):
        for j in range(w):
            rows = range(i * H // h, math.ceil((i + 1) * H / h))
            columns = range(j * W // w, math.ceil((j + 1) * W / w))
            share = sum(mask[y][x] for y in rows for x in columns) / (len(rows) * len(columns))
            both += found[i][j] * share
            total += found[i][j] + share
    return 1 - 2 * both / total


@pytest.mark.parametrize(
    "count, small, large",
    [
        (3, (4, 4), (4, 4)),
        (2, (4, 4), (32, 32)),
        (1, (3, 5), (24, 40)),
        (1, (5, 2), (40, 16)),
        (2, (4, 3), (10, 7)),
        (1, (1, 1), (6, 4)),
    ],
)
def test_dice_equals_a_plain_loop(count, small, large):
    generator = torch.Generator().manual_seed(count + large[1])
    maps = torch.rand(count, 1, *small, generator=generator)
    masks = (torch.rand(count, 1, *large, generator=generator) < 0.3).float()
    loss = dice_loss(maps, masks)
    assert loss.shape == (count,)
    expected = [
        plain_dice(one.tolist(), mask.tolist())
        for one, mask in zip(maps[:, 0], masks[:, 0], strict=True)
    ]
    assert loss.tolist() == pytest.approx(expected, abs=1e-5)


def test_dice_is_0_on_the_mask_1_beside_it_and_each_photograph_has_its_own():
    mask = torch.zeros(1, 1, 4, 6)
    mask[..., :3] = 1
    loss = dice_loss(torch.cat([mask, 1 - mask, torch.ones_like(mask)]), mask.expand(3, 1, 4, 6))
    assert loss.tolist() == pytest.approx([0, 1, 1 / 3], abs=1e-6)


def test_an_empty_mask_asks_for_an_empty_map_and_harms_no_gradient():
    empty = torch.zeros(1, 1, 8, 8)
    maps = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    loss = dice_loss(maps, empty)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1, abs=1e-5) and maps.grad.isfinite().all()
    assert dice_loss(torch.zeros(1, 1, 4, 4), empty).item() == pytest.approx(0)


def test_the_gradient_of_dice_pulls_the_map_onto_the_mask():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8, :] = 1
    maps = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    dice_loss(maps, mask).sum().backward()
    assert (maps.grad[..., :2, :] < 0).all() and (maps.grad[..., 2:, :] > 0).all()


def test_the_loss_on_masks_weighs_the_maps_and_leaves_photographs_without_a_mask_out():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(4, 1, 4, 6, generator=generator), torch.rand(4, 1, 2, 3, generator=generator)
    masks = (torch.rand(4, 1, 16, 24, generator=generator) < 0.4).float()
    terms = [
        [plain_dice(one[row, 0].tolist(), masks[row, 0].tolist()) for one in maps]
        for row in range(4)
    ]
    found = mask_loss(maps, masks, torch.tensor([1.0, 0, 1, 1]), (0.5, 2.0))
    expected = sum(0.5 * terms[row][0] + 2 * terms[row][1] for row in (0, 2, 3)) / 3
    assert found.item() == pytest.approx(expected, abs=1e-5)
    assert mask_loss(maps, masks, torch.zeros(4), (0.5, 2.0)) == 0
    alone = mask_loss([one[:1] for one in maps], masks[:1], torch.ones(1), (0.0, 1.0))
    assert alone.item() == pytest.approx(terms[0][1], abs=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_shares_of_a_batch_add_up_to_the_whole(reduction):
    """Sums of shares add up, however many masks each has; means do not."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(5, 1, side, side, generator=generator) for side in (4, 2)]
    masks = torch.rand(5, 1, 8, 8, generator=generator)
    masked = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])

    def of(part: slice) -> torch.Tensor:
        return mask_loss(
            [one[part] for one in maps], masks[part], masked[part], (0.5, 2.0), reduction=reduction
        )

    added = of(slice(0, 2)) + of(slice(2, 5))
    assert torch.isclose(added, of(slice(0, 5))).item() is (reduction == "sum")


def test_mask_loss_refuses_another_reduction():
    maps = [torch.rand(1, 1, 2, 2)]
    with pytest.raises(ValueError, match="'none'"):
        mask_loss(maps, torch.rand(1, 1, 4, 4), torch.ones(1), [1.0], reduction="none")
