"""Photographs taken from the cache by row, and the guess at a lesion, against plain indexing."""

import cv2
import numpy as np
import pytest
import torch

from helpers.training import batches
from helpers.training.augment import Augmentation, draw, transform
from helpers.training.batches import Photographs

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
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


# the cache


@pytest.fixture
def cache(tmp_path) -> dict:
    """Eleven photographs of 40 pixels and their masks, described as `cache.json` does."""
    pixels = some_pixels(11, 40, 40, 3).numpy()
    masks = (some_pixels(11, 40, 40, seed=1) > 127).numpy().astype(np.uint8) * 255
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "masks.npy", masks)
    return {"file": str(tmp_path / "pixels.npy"), "masks_file": str(tmp_path / "masks.npy")}


ROWS = [
    np.array([7, 2, 9]),
    np.array([0]),
    np.array([10, 10, 3, 1]),
    np.array([5, 4]),
]  # any order, twice, one alone


def test_rows_are_taken_in_the_order_asked(cache):
    photographs = Photographs(cache, torch.device("cpu"))
    assert len(photographs) == 11
    for rows in ROWS:
        pixels, masks = photographs.take(rows)
        assert pixels.dtype == masks.dtype == torch.uint8
        assert np.array_equal(pixels, np.load(cache["file"])[rows])
        assert np.array_equal(masks, np.load(cache["masks_file"])[rows])


def test_what_is_taken_may_be_changed_without_harm_to_the_cache(cache):
    photographs = Photographs(cache, torch.device("cpu"))
    before = photographs.take(ROWS[0])[0].clone()
    photographs.take(ROWS[0])[0].zero_()
    assert torch.equal(photographs.take(ROWS[0])[0], before)


def test_without_masks_there_are_none(cache):
    photographs = Photographs({**cache, "masks_file": ""}, torch.device("cpu"))
    assert photographs.masks is None and photographs.take(ROWS[0])[1] is None
    config = {"view": 1.0, "image_size": 32, "mean": MEAN, "std": STD}
    assert photographs.evaluation(ROWS[0], config)[1] is None
    assert [masks for _, masks in photographs.stream(ROWS)] == [None] * len(ROWS)


@pytest.mark.parametrize("count", range(len(ROWS) + 1))
@pytest.mark.parametrize("ahead", [False, True])
def test_a_stream_is_take_for_one_batch_after_another(ahead, count, cache, monkeypatch):
    photographs = Photographs(cache, torch.device("cpu"))
    expected = [photographs.take(rows) for rows in ROWS[:count]]
    if (
        ahead
    ):  # as for a device without room; "meta" holds no values, so what was read stays where it is
        photographs = Photographs(cache, torch.device("meta"))
        monkeypatch.setattr(photographs, "_send", lambda *read: read)
        monkeypatch.setattr(photographs, "take", None)
    found = list(photographs.stream(ROWS[:count]))
    assert len(found) == count
    for (pixels, masks), (same_pixels, same_masks) in zip(found, expected, strict=True):
        assert torch.equal(pixels, same_pixels) and torch.equal(masks, same_masks)


def test_reading_ahead_reports_a_row_that_is_not_there(cache):
    with pytest.raises(IndexError):
        list(Photographs(cache, torch.device("meta")).stream([ROWS[0], np.array([11])]))


@pytest.mark.parametrize("rows", ROWS)
def test_evaluation_sees_the_middle(rows, cache):
    config = {
        "view": 0.7,
        "image_size": 28,
        "mean": MEAN,
        "std": STD,
    }  # 0.7 of 40 are 28: no interpolation
    images, masks = Photographs(cache, torch.device("cpu")).evaluation(rows, config)
    middle = np.load(cache["file"])[rows][:, 6:34, 6:34]
    np.testing.assert_allclose(images.permute(0, 2, 3, 1), (middle / 255 - MEAN) / STD, atol=1e-4)
    np.testing.assert_allclose(
        masks[:, 0], np.load(cache["masks_file"])[rows][:, 6:34, 6:34] / 255, atol=1e-4
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [False, True])
def test_a_gpu_sees_what_the_cpu_sees(resident, cache, monkeypatch):
    if not resident:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    there, here = (Photographs(cache, torch.device(kind)) for kind in ("cuda", "cpu"))
    assert there.resident is resident
    for (pixels, masks), rows in zip(there.stream(ROWS), ROWS, strict=True):
        draws = draw(len(rows), STRONG, seeded())
        assert pixels.is_cuda and torch.equal(pixels.cpu(), here.take(rows)[0])
        assert torch.equal(masks.cpu(), here.take(rows)[1])
        found, expected = (
            transform(one, draws, 32, mean=MEAN, std=STD) for one in (pixels, pixels.cpu())
        )
        torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=0)


# a guess at the lesion


def some_lesion(*, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Skin with noise, a dark disc off the middle, a smaller dark stripe at the border.

    Returns the photograph [S, S, 3] and the disc [S, S].
    """
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:side, :side] / side
    disc, stripe = np.hypot(x - 0.4, y - 0.55) < 0.2, x > 0.93
    skin = np.where((disc | stripe)[..., None], (110, 70, 60), (210, 160, 140)) + rng.normal(
        0, 8, (side, side, 3)
    )
    return skin.clip(0, 255).astype(np.uint8), disc


def test_otsu_finds_the_dark_part_in_the_middle_and_nothing_else():
    photograph, disc = some_lesion()
    found = batches.otsu(photograph)
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 255}
    assert ((found > 0) & disc).sum() / ((found > 0) | disc).sum() > 0.93
    assert not found[:, -4:].any()


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (32, 32)])
def test_otsu_takes_any_shape_and_finds_nothing_in_one_colour(shape):
    assert batches.otsu(np.full((*shape, 3), 90, np.uint8)).shape == shape
    assert not batches.otsu(np.full((*shape, 3), 90, np.uint8)).any()


def test_otsus_threshold_is_the_one_that_parts_the_pixels_best():
    photograph, _ = some_lesion()
    photograph[:, 80:] = photograph[0, 0]  # no stripe: all that is dark is the disc
    blue = cv2.GaussianBlur(photograph[..., 2].copy(), (0, 0), 96 / 48)
    between = {}
    for level in range(int(blue.min()), int(blue.max())):
        low, high = blue[blue <= level], blue[blue > level]
        between[level] = len(low) * len(high) * (low.mean() - high.mean()) ** 2
    assert (
        (batches.otsu(photograph) > 0) == (blue <= max(between, key=between.get))
    ).mean() > 0.995


def test_guessed_masks_are_otsus_and_leave_the_photographs_alone(cache):
    photographs = Photographs({**cache, "masks_file": ""}, torch.device("cpu"))
    found = photographs.guessed()
    assert photographs.masks is None and len(found.masks) == len(photographs)
    pixels, masks = found.take(np.array([2, 0]))
    for one, mask in zip(pixels, masks, strict=True):
        assert np.array_equal(mask.numpy(), batches.otsu(one.numpy()))
