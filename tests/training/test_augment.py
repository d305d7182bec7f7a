"""Augmented batches against NumPy, torchvision and a loop in plain Python.

Flips and turns are NumPy's, rotation and colours torchvision's.
"""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from helpers.training.augment import (
    Augmentation,
    Draws,
    denormalise,
    draw,
    plain,
    transform,
    warp,
    warp_masks,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NONE = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
STRONG = Augmentation(
    rotation=30,
    quarter_turns=True,
    horizontal_flip=True,
    vertical_flip=True,
    view=(0.5, 1.0),
    shift=True,
    colour=0.2,
)


def some_pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sizes(draws: Draws) -> np.ndarray:
    """How much of the photograph is seen [B]: the root of the geometry's determinant."""
    return torch.linalg.det(draws.geometry[:, :, :2]).abs().sqrt().numpy()


# draws


def test_a_draw_follows_from_its_generator():
    first, again, other = (draw(5, STRONG, seeded(seed)) for seed in (1, 1, 2))
    assert first.geometry.shape == (5, 2, 3) and first.colour.shape == (5, 3, 4)
    for one, same, different in zip(first, again, other, strict=True):
        assert torch.equal(one, same) and not torch.equal(one, different)
        assert len(one.unique(dim=0)) == 5  # each photograph has its own draw


def test_two_draws_of_one_generator_differ():
    generator = seeded()
    assert not torch.equal(draw(3, STRONG, generator).geometry, draw(3, STRONG, generator).geometry)


@pytest.mark.parametrize("count", [1, 4])
def test_no_augmentation_draws_the_photograph_itself(count):
    for drawn, expected in zip(draw(count, Augmentation(), seeded()), plain(count), strict=True):
        torch.testing.assert_close(drawn, expected)


def angles(draws: Draws) -> np.ndarray:
    return np.degrees(np.arctan2(draws.geometry[:, 1, 0].numpy(), draws.geometry[:, 0, 0].numpy()))


def test_rotation_is_uniform_within_its_range():
    found = angles(draw(4000, Augmentation(rotation=10), seeded()))
    assert np.abs(found).max() <= 10.001 and found.min() < -9.9 and found.max() > 9.9
    assert abs(found.mean()) < 0.5 and found.std() == pytest.approx(20 / math.sqrt(12), rel=0.05)


def test_quarter_turns_are_four_alike():
    found = np.round(angles(draw(4000, Augmentation(quarter_turns=True), seeded())), 3) % 360
    values, counts = np.unique(found, return_counts=True)
    assert (
        values.tolist() == [0, 90, 180, 270] and np.abs(counts - 1000).max() < 140
    )  # five standard deviations


@pytest.mark.parametrize("name, axis", [("horizontal_flip", 0), ("vertical_flip", 1)])
def test_half_are_flipped_along_the_named_axis_alone(name, axis):
    geometry = draw(4000, Augmentation(**{name: True}), seeded()).geometry.round(decimals=5)
    assert set(geometry[:, axis, axis].tolist()) == {-1.0, 1.0}
    assert abs((geometry[:, axis, axis] < 0).float().mean() - 0.5) < 0.04
    assert (geometry[:, 1 - axis, 1 - axis] == 1).all() and (geometry[:, 0, 1] == 0).all()


def test_what_is_seen_lies_within_the_photograph_and_moves_only_if_asked():
    still = draw(2000, Augmentation(view=(0.6, 0.9)), seeded())
    moved = draw(2000, Augmentation(view=(0.6, 0.9), shift=True), seeded())
    for draws in (still, moved):
        assert sizes(draws).min() == pytest.approx(0.6, abs=0.01) and sizes(
            draws
        ).max() == pytest.approx(0.9, abs=0.01)
    assert not still.geometry[:, :, 2].any()
    reach = moved.geometry[:, :, 2].abs().numpy() + sizes(moved)[:, None]
    assert reach.max() <= 1 + 1e-6 and reach.max() > 0.99


def parts_of(colour: torch.Tensor) -> tuple[float, float, float]:
    """Brightness, contrast and saturation of one colour draw [3, 4]."""
    contrast = 1 - 2 * colour[0, 3].item()
    both = (
        colour[0, :3].sum().item()
    )  # of brightness and contrast: grey stays grey, whatever the saturation
    return both / contrast, contrast, (colour[0, 0] - colour[1, 0]).item() / both


def test_colours_are_drawn_each_for_itself_within_their_range():
    found = np.array(
        [parts_of(one) for one in draw(1000, Augmentation(colour=0.2), seeded()).colour]
    )
    assert found.min(axis=0) == pytest.approx(0.8, abs=0.01) and found.max(axis=0) == pytest.approx(
        1.2, abs=0.01
    )
    assert np.abs(np.corrcoef(found.T) - np.eye(3)).max() < 0.15


# geometry


@pytest.mark.parametrize("count, side", [(1, 8), (3, 7), (2, 33)])
def test_a_plain_draw_at_equal_size_normalises_and_nothing_else(count, side):
    pixels = some_pixels(count, side, side, 3)
    images = transform(pixels, plain(count), side, mean=MEAN, std=STD)
    assert images.shape == (count, 3, side, side) and images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    expected = (pixels.numpy() / 255 - MEAN) / STD
    np.testing.assert_allclose(images.permute(0, 2, 3, 1), expected, atol=1e-4)


def shown(pixels: torch.Tensor, draws: Draws) -> np.ndarray:
    """uint8 [B, S, S, 3] through the draws, at its size, as uint8 again."""
    return (
        (denormalise(transform(pixels, draws, pixels.shape[1], **NONE), **NONE) * 255)
        .round()
        .astype(np.uint8)
    )


@pytest.mark.parametrize("side", [8, 9])
def test_flips_are_numpys_flips(side):
    pixels = some_pixels(24, side, side, 3)
    draws = draw(24, Augmentation(horizontal_flip=True, vertical_flip=True), seeded())
    seen = set()
    for one, geometry, found in zip(
        pixels.numpy(), draws.geometry, shown(pixels, draws), strict=True
    ):
        axes = tuple(
            axis for axis in (0, 1) if geometry[1 - axis, 1 - axis] < 0
        )  # rows are y, columns x
        assert np.array_equal(found, np.flip(one, axes))
        seen.add(axes)
    assert len(seen) == 4


@pytest.mark.parametrize("side", [8, 9])
def test_quarter_turns_are_numpys_rot90(side):
    pixels = some_pixels(16, side, side, 3)
    draws = draw(16, Augmentation(quarter_turns=True), seeded())
    turns = np.round(angles(draws) / 90).astype(int) % 4
    for one, turn, found in zip(pixels.numpy(), turns, shown(pixels, draws), strict=True):
        assert np.array_equal(found, np.rot90(one, turn))
    assert set(turns) == {0, 1, 2, 3}


def test_rotation_is_torchvisions():
    side = 48
    coarse = some_pixels(6, 3, 6, 6).float()
    smooth = (
        v2.resize(coarse, [side, side], antialias=True).round().clamp(0, 255).byte()
    )  # [B, 3, S, S]
    draws = draw(6, Augmentation(rotation=10), seeded(3))
    found = shown(smooth.permute(0, 2, 3, 1), draws)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = np.hypot(x, y) < side / 2 - 1  # what no rotation takes from outside
    for one, angle, image in zip(smooth, angles(draws), found, strict=True):
        theirs = (
            v2.rotate(one, float(angle), interpolation=InterpolationMode.BILINEAR)
            .permute(1, 2, 0)
            .numpy()
        )
        assert np.abs(image.astype(int) - theirs)[inside].max() <= 2
        moved = np.abs(one.permute(1, 2, 0).numpy().astype(int) - theirs)[inside].mean()
        assert moved > abs(angle)  # in grey levels: it did turn


def test_outside_lies_the_photograph_mirrored_not_black():
    white = torch.full((20, 16, 16, 3), 255, dtype=torch.uint8)
    assert shown(white, draw(20, STRONG._replace(colour=0.0), seeded())).min() == 255


def plain_warp(image: np.ndarray, geometry: np.ndarray, side: int) -> np.ndarray:
    """One channel [S, S] sampled bilinearly into [side, side], pixel by pixel, mirrored outside."""
    S = len(image)

    def mirrored(place: float) -> float:
        while place < -0.5 or place > S - 0.5:
            place = -1 - place if place < -0.5 else 2 * S - 1 - place
        return min(max(place, 0), S - 1)

    found = np.empty((side, side))
    for row in range(side):
        for column in range(side):
            output = np.array([(2 * column + 1) / side - 1, (2 * row + 1) / side - 1, 1])
            x, y = (mirrored(((one + 1) * S - 1) / 2) for one in geometry @ output)
            left, top = min(int(x), S - 2), min(int(y), S - 2)
            right, low = x - left, y - top
            found[row, column] = (1 - low) * (
                (1 - right) * image[top, left] + right * image[top, left + 1]
            ) + low * ((1 - right) * image[top + 1, left] + right * image[top + 1, left + 1])
    return found


@pytest.mark.parametrize("count, stored, side", [(4, 6, 5), (1, 9, 9), (3, 7, 12)])
def test_a_warp_equals_a_plain_loop(count, stored, side):
    images = torch.rand(count, 2, stored, stored, generator=seeded())
    draws = draw(count, STRONG._replace(view=(0.5, 1.3)), seeded(5))
    found = warp(images, draws.geometry, side)
    assert found.shape == (count, 2, side, side)
    for one, geometry, image in zip(
        found.numpy(), draws.geometry.numpy(), images.numpy(), strict=True
    ):
        for channel, expected in zip(one, image, strict=True):
            np.testing.assert_allclose(channel, plain_warp(expected, geometry, side), atol=1e-4)


@pytest.mark.parametrize("count", [1, 5])
def test_a_mask_is_warped_with_its_photograph(count):
    masks = (some_pixels(count, 20, 20) > 127).byte() * 255
    draws = draw(count, STRONG._replace(colour=0.0), seeded(7))
    warped = warp_masks(masks, draws, 16)
    images = transform(masks[..., None].expand(-1, -1, -1, 3), draws, 16, **NONE)
    assert warped.shape == (count, 1, 16, 16) and warped.min() >= 0 and warped.max() <= 1
    torch.testing.assert_close(warped.expand(-1, 3, -1, -1), images)


# colour


@pytest.mark.parametrize("seed", range(4))
def test_colours_are_torchvisions_about_middle_grey(seed):
    pixels = 80 + some_pixels(1, 6, 6, 3) // 4  # 80 to 143: nothing is clipped
    draws = draw(1, Augmentation(colour=0.2), seeded(seed))
    brightness, contrast, saturation = parts_of(draws.colour[0])
    image = v2.adjust_brightness(
        v2.adjust_saturation(pixels.permute(0, 3, 1, 2).float() / 255, saturation), brightness
    )
    grey = v2.rgb_to_grayscale(image).mean()
    theirs = v2.adjust_contrast(image, contrast) + (1 - contrast) * (
        0.5 - grey
    )  # about its own grey, not about 0.5
    torch.testing.assert_close(transform(pixels, draws, 6, **NONE), theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("part, change", [(0, v2.adjust_brightness), (2, v2.adjust_saturation)])
def test_brightness_and_saturation_alone_are_torchvisions(part, change):
    pixels, amounts = some_pixels(1, 5, 5, 3), [1.0, 1.0, 1.0]
    amounts[part] = 0.7
    brightness, _, saturation = amounts
    grey = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
    colour = torch.cat(
        [brightness * (saturation * torch.eye(3) + (1 - saturation) * grey), torch.zeros(3, 1)],
        dim=1,
    )
    assert parts_of(colour) == pytest.approx(amounts, abs=1e-6)  # the test's own reading of a draw
    found = transform(pixels, Draws(plain(1).geometry, colour[None]), 5, **NONE)
    torch.testing.assert_close(
        found, change(pixels.permute(0, 3, 1, 2).float() / 255, 0.7), atol=1e-3, rtol=0
    )


def test_colours_stay_between_black_and_white():
    images = transform(
        some_pixels(8, 6, 6, 3), draw(8, Augmentation(colour=0.9), seeded()), 6, **NONE
    )
    assert images.min() == 0 and images.max() == 1


@pytest.mark.parametrize("count", [1, 3])
def test_denormalise_gives_the_photographs_back(count):
    pixels = some_pixels(count, 9, 9, 3)
    back = denormalise(transform(pixels, plain(count), 9, mean=MEAN, std=STD), mean=MEAN, std=STD)
    assert back.shape == (count, 9, 9, 3) and back.min() >= 0 and back.max() <= 1
    np.testing.assert_allclose(back, pixels.numpy() / 255, atol=1e-5)
