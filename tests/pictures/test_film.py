"""helpers/pictures/film.py: what is taken while a small network trains, and what is refused."""

import matplotlib

matplotlib.use("Agg")  # before pyplot: no window

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from helpers.model import AttnVGG  # noqa: E402
from helpers.photographs.cache import fill  # noqa: E402
from helpers.pictures import film  # noqa: E402
from helpers.pictures.maps import evaluate, min_max, overlay, upsample  # noqa: E402
from helpers.training.augment import denormalise  # noqa: E402
from helpers.training.batches import Photographs  # noqa: E402

CONFIG = {
    "view": 1.0,
    "image_size": 32,
    "mean": (0.5, 0.4, 0.4),
    "std": (0.2, 0.2, 0.3),
    "made_from": {"seed": 1},
}


@pytest.fixture
def photographs(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (12, 36, 36, 3), np.uint8)
    fill(tmp_path / "cache.npy", noise.shape, noise.__getitem__, [], "photographs")
    return Photographs({"file": str(tmp_path / "cache.npy"), "masks_file": ""}, torch.device("cpu"))


@pytest.fixture
def used():
    return pd.DataFrame({"split": ["train", "val"] * 6, "target": [0, 0, 1] * 4})


@pytest.fixture
def networks():
    """After three epochs."""
    made = []
    for seed in range(3):
        torch.manual_seed(seed)
        made.append(AttnVGG().eval())
    return made


def take(path, photographs, used, networks, *, config=CONFIG, first=1, seed=5):
    camera = film.camera(path, photographs, used, seed)
    for epoch, network in enumerate(networks, start=first):
        camera(epoch, network, config)


def test_a_frame_is_what_the_network_of_that_epoch_shows(tmp_path, photographs, used, networks):
    path = tmp_path / "film.npz"
    take(path, photographs, used, networks)
    found = film.read(path, CONFIG)
    assert found.epochs.tolist() == [1, 2, 3]
    assert (used["split"][found.rows] == "val").all()
    assert used["target"][found.rows].tolist() == [1, 1, 0, 0, 0, 0]
    for number, network in enumerate(networks):
        output = evaluate(network, photographs, found.rows, CONFIG)
        assert torch.equal(found.pool3[number], output.pool3_map)
        assert torch.equal(found.pool4[number], output.pool4_map)


def test_a_training_that_goes_on_goes_on_with_its_film(tmp_path, photographs, used, networks):
    whole, cut = tmp_path / "whole.npz", tmp_path / "cut.npz"
    take(whole, photographs, used, networks)
    take(cut, photographs, used, [*networks[:2], networks[0]])
    take(cut, photographs, used, networks[2:], first=3)  # the third epoch once more
    for one, other in zip(film.read(whole, CONFIG), film.read(cut, CONFIG), strict=True):
        assert np.array_equal(one, other)
    take(cut, photographs, used, networks[:1])  # from the start: nothing is left of the old one
    assert film.read(cut, CONFIG).epochs.tolist() == [1]


def test_another_trainings_film_is_none(tmp_path, photographs, used, networks):
    path = tmp_path / "film.npz"
    other = CONFIG | {"made_from": {"seed": 2}}
    assert film.read(path, CONFIG) is None
    take(path, photographs, used, networks[:1])
    assert film.read(path, other) is None
    assert film.read(path, {}) is None, "a network of an earlier edition"
    take(path, photographs, used, networks[1:2], config=other, first=2)
    assert film.read(path, other).epochs.tolist() == [2], "and none goes on with it"
    path.write_bytes(path.read_bytes()[:-60])
    assert film.read(path, other) is None


def test_other_photographs_begin_a_film_of_their_own(tmp_path, photographs, used, networks):
    path = tmp_path / "film.npz"
    take(path, photographs, used, networks[:1])
    take(path, photographs, used, networks[1:], first=2, seed=6)
    assert film.read(path, CONFIG).epochs.tolist() == [2, 3]


def test_without_attention_there_is_none(tmp_path, photographs, used):
    take(tmp_path / "film.npz", photographs, used, [AttnVGG(attention="none").eval()])
    assert not (tmp_path / "film.npz").exists()


@pytest.mark.parametrize("pool", ["pool-3", "pool-4"])
def test_the_figure_has_a_row_a_photograph_and_a_column_an_epoch(
    tmp_path, photographs, used, networks, pool
):
    take(tmp_path / "film.npz", photographs, used, networks)
    reel = film.read(tmp_path / "film.npz", CONFIG)
    drawing = film.figure(reel, pool, photographs, used, CONFIG, each=1, scenes=2)
    assert [axis.get_title() for axis in drawing.axes[:2]] == ["epoch 1", "epoch 3"]
    assert [axis.get_ylabel() for axis in drawing.axes[::2]] == ["melanoma 1", "benign 1"]
    assert pool in drawing.get_suptitle()
    assert len(film.figure(reel, pool, photographs, used, CONFIG).axes) == 4 * 3
    maps = reel.pool3 if pool == "pool-3" else reel.pool4
    images, _ = photographs.evaluation(reel.rows[:1], CONFIG)
    picture = denormalise(images, mean=CONFIG["mean"], std=CONFIG["std"])
    large = min_max(upsample(maps[2, :1], (32, 32)))
    expected = overlay(picture, large, share=0.7, follow_map=True)[0]
    assert np.allclose(drawing.axes[1].images[0].get_array(), expected, atol=1e-6)
    plt.close("all")


def test_a_pool_of_another_name_is_refused(tmp_path, photographs, used, networks):
    take(tmp_path / "film.npz", photographs, used, networks)
    reel = film.read(tmp_path / "film.npz", CONFIG)
    with pytest.raises(ValueError, match="'pool-3', 'pool-4', not 'pool3'"):
        film.figure(reel, "pool3", photographs, used, CONFIG)
