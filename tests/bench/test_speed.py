"""bench/speed.py: its loops train one network, and leave every figure. No speed is tested."""

import copy
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.ops import sigmoid_focal_loss

from helpers import model
from helpers.training import augment, batches
from helpers.training.loss import focal_loss
from helpers.training.settings import Settings
from tests.bench.conftest import record  # puts bench/ on the path
from tests.conftest import PROJECT

import loops  # isort: skip
import publish  # isort: skip

COLOUR = (200, 120, 60)


@pytest.fixture(scope="module")
def batch():
    """Six photographs of random numbers, of both classes, and a network."""
    torch.manual_seed(0)
    return torch.randn(6, 3, 32, 32), torch.tensor([0.0, 1, 0, 1, 1, 0]), model.AttnVGG()


@pytest.fixture
def flat(tmp_path):
    """Five photographs of one colour."""
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for path in paths:
        Image.new("RGB", (96, 96), COLOUR).save(path, quality=95)
    return paths


def pairs_auc(targets, scores) -> float:
    """Of all pairs of a positive and a negative, the share in order."""
    won = [
        float(a > b) + 0.5 * float(a == b)
        for a in scores[targets == 1]
        for b in scores[targets == 0]
    ]
    return float(np.mean(won))


def test_a_step_of_the_tutorial_is_that_of_its_equations(batch):
    images, targets, start = batch
    network, twin = copy.deepcopy(start), copy.deepcopy(start).train()
    value, auc = loops.tutorial_epoch(
        network, [(images, targets)], torch.optim.Adam(network.parameters(), lr=1e-4)
    )
    logits = twin(images).logits[:, 0]
    expected = 0.25 * sigmoid_focal_loss(logits, targets, alpha=-1, gamma=2, reduction="mean")
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-5)
    assert auc == pytest.approx(pairs_auc(targets, logits))
    networks = (network.named_parameters(), twin.parameters(), start.parameters())
    for (name, new), by_hand, old in zip(*networks, strict=True):
        torch.testing.assert_close(new.grad, by_hand.grad, rtol=1e-3, atol=1e-6, msg=name)
        torch.testing.assert_close(
            new, old - 1e-4 * new.grad / (new.grad.abs() + 1e-8), rtol=0, atol=1e-6, msg=name
        )


def test_peer_and_ours_take_the_same_step_four_times_as_steep(batch):
    images, targets, start = batch
    gradients, scaler = [], torch.amp.GradScaler("cpu", enabled=False)
    for step in (
        loops.tutorial_step,
        lambda *given: loops.mixed_step(*given, scaler, torch.float32),
        lambda *given: loops.mixed_step(*given, scaler, torch.float32, focal_loss),
    ):
        network = copy.deepcopy(start).train()
        step(network, images, targets, torch.optim.SGD(network.parameters(), lr=1e-3))
        assert not torch.equal(network.classifier.weight, start.classifier.weight)
        gradients.append(torch.cat([one.grad.flatten() for one in network.parameters()]))
    for one in gradients[1:]:
        torch.testing.assert_close(one, 4 * gradients[0], rtol=1e-3, atol=1e-6)


def test_what_the_tutorial_prints_is_the_auc_of_its_last_batch():
    class Echo(torch.nn.Linear):
        def forward(self, images):
            return (super().forward(images),)

    network = Echo(1, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    first = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([1.0, 1, 0, 0])  # AUC 0
    last = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([0.0, 1, 0, 1])  # AUC 3 / 4
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
    assert loops.tutorial_epoch(network, [first, last], optimiser)[1] == pytest.approx(0.75)
    assert loops.tutorial_epoch(network, [last, first], optimiser)[1] == pytest.approx(0.0)


def test_all_three_normalise_alike(flat):
    expected = (torch.tensor(COLOUR) / 255 - torch.tensor(loops.MEAN)) / torch.tensor(loops.STD)
    cpu, targets = torch.device("cpu"), np.array([0, 1, 0, 1, 1])
    seen = []
    for loader in (
        loops.tutorial_loader(flat, targets, 64, 2, cpu),
        torch.utils.data.DataLoader(loops.PeerPhotographs(flat, targets, 64), batch_size=2),
    ):
        images, labels = zip(*loops.peer_batches(loader, cpu), strict=True)
        assert [tuple(one.shape) for one in images] == [
            (2, 3, 64, 64),
            (2, 3, 64, 64),
            (1, 3, 64, 64),
        ]
        assert torch.cat(labels).dtype == torch.float32 and sorted(torch.cat(labels).tolist()) == [
            0,
            0,
            1,
            1,
            1,
        ]
        assert images[0].is_contiguous(memory_format=torch.channels_last)
        seen += [torch.cat(images)[:, :, 32, 32]]  # corners may be turned out
    pixels = torch.tensor(COLOUR, dtype=torch.uint8).expand(5, 73, 73, 3)
    seen += [
        augment.transform(pixels, augment.plain(5), 64, mean=loops.MEAN, std=loops.STD)[
            :, :, 32, 32
        ]
    ]
    for middle in seen:
        torch.testing.assert_close(
            middle, expected.expand(5, 3), rtol=0, atol=0.03
        )  # JPEG: a step of 1 is 0.017
    given = loops.peer_loader(flat, targets, 64, 2, cpu)
    assert (given.num_workers, given.persistent_workers) == (record.cores(), True)


def test_our_batches_hold_each_row_once(tmp_path):
    pixels = np.zeros((9, 36, 36, 3), np.uint8)
    pixels += np.arange(0, 180, 20, dtype=np.uint8)[:, None, None, None]
    photographs = object.__new__(batches.Photographs)
    photographs.device, photographs.resident = torch.device("cpu"), False
    photographs.pixels, photographs.masks = pixels, None
    rows = np.array([1, 2, 4, 5, 7, 8])
    found = list(
        loops.our_batches(
            Settings(recipe="tutorial", image_size=32, batch_size=4), photographs, rows
        )
    )
    assert [tuple(one.shape) for one in found] == [(3, 3, 32, 32)] * 2
    red = torch.cat(found)[:, 0, 16, 16] * loops.STD[0] + loops.MEAN[0]
    assert sorted((red * 255).round().int().tolist()) == [20 * row for row in rows]


def test_the_convolutions_are_those_of_the_network(batch):
    def shapes(run, layers) -> list:
        found = []
        hooks = [
            layer.register_forward_hook(lambda layer, given, _: found.append(tuple(given[0].shape)))
            for layer in layers
        ]
        run()
        for hook in hooks:
            hook.remove()
        return found

    network = copy.deepcopy(batch[2])
    layers = [layer for layer in network.backbone if isinstance(layer, torch.nn.Conv2d)]
    expected = shapes(lambda: network(batch[0]), layers)
    assert len(expected) == 13
    assert shapes(loops.convolutions(network.backbone, batch[0], torch.float32), layers) == expected


def test_the_chosen_rows(photographs):
    split = loops.choose(photographs, 25, 4)
    assert split["split"].value_counts().to_dict() == {"train": 19, "val": 2, "test": 4}
    assert set(split.loc[split["split"] == "val", "target"]) == {0, 1}
    assert set(split.loc[split["split"] == "train", "target"]) == {0, 1}
    assert (
        split["image_id"].is_unique
        and (split["kept"] == 1).all()
        and split.index.tolist() == list(range(25))
    )
    assert split["image_id"].tolist() == loops.choose(photographs, 40, 4)["image_id"][:25].tolist()
    with pytest.raises(ValueError, match="5 photographs are not a batch of 4 and two"):
        loops.choose(photographs, 5, 4)


HOLDING = """
import sys
import numpy as np
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/bench"]
import loops

def held() -> int:
    def stop(seconds):
        raise StopIteration
    peak, loops.time.sleep = [0], stop
    try:
        loops.watch(peak)
    except StopIteration:
        return peak[0]

before = held()
mapped = np.load(sys.argv[2], mmap_mode="r")
assert mapped.sum() == 60_000_000
between = held()
ballast = np.ones(60_000_000, np.uint8)
print(between - before, held() - between)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux says what a process holds for itself"
)
def test_memory_is_what_a_process_holds_and_not_what_it_maps(tmp_path):
    """In a process of its own: one that ran for long takes what it freed, and holds no more."""
    np.save(tmp_path / "pixels.npy", np.ones(60_000_000, np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", HOLDING, str(PROJECT), str(tmp_path / "pixels.npy")],
        check=True,
        capture_output=True,
        text=True,
    )
    mapping, ballast = map(int, done.stdout.split())
    assert abs(mapping) < 20e6 < 50e6 < ballast < 80e6


def test_every_figure_is_left(run_program):
    few = ["--count", "40", "--image-size", "32", "--batch-size", "4", "--rounds", "1"]
    result = run_program("speed", *few)
    figures = result["figures"]
    for figure in ("cache", "batches", "step", "end_to_end"):
        row = figures[figure]
        assert min(row[name] for name in ("ours", "tutorial", "peer")) > 0
        assert row["ratio"] == pytest.approx(row["ours"] / row["tutorial"])
        assert row["ratio_to_peer"] == pytest.approx(row["ours"] / row["peer"])
        assert f"{row['ours']:,.1f}" in figures["printed"]
        assert [len(speeds) for speeds in figures["rounds"][figure].values()][:3] == [1, 1, 1]
    assert figures["convolutions"] > 0
    share = figures["end_to_end"]["ours"] / figures["step"]["ours"]
    assert figures["share_of_step"]["ours"] == pytest.approx(share)
    assert [row["photographs"] for row in figures["growth"]] == [10, 20, 40]
    assert all(row["cache"] > 0 and row["epoch"] > 0 for row in figures["growth"])
    if sys.platform == "linux":
        peaks = [figures["peak_memory"][name] for name in ("ours", "tutorial", "peer")]
        assert all(1e8 < peak < 8e9 for peak in peaks)
    assert result["data"]["photographs"] == 40
    hours = 1e6 / figures["end_to_end"]["ours"] / 3600
    assert "1,000,000 x 36 x 36 x 3 bytes = 4 GB" in figures["projected"][0]
    assert f"ours {hours:,.1f} h" in figures["projected"][0]
    for block in (publish.speed, publish.speed_table, publish.speed_projection):
        assert block(result)
    assert figures["printed"] in publish.speed_table(result)


def test_building_deletes_no_cache_of_the_readers(photographs, folders, tmp_path):
    mine = folders.data / "cache" / "mine.npy"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    split = loops.choose(photographs, 12, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_DATA", str(folders.data))
        for _ in range(2):
            cache, seconds = loops.build(photographs, split, 32, tmp_path / "place")
    assert mine.read_bytes() == b"mine" and seconds > 0
    assert len(cache["rows"]) == 12 and list((tmp_path / "place").rglob("*.npy"))


def test_made_photographs_are_of_the_size_of_real_ones(tmp_path, real_data):
    loops.make_photographs(tmp_path / "made", 40)
    made = list((tmp_path / "made").rglob("*.jpg"))
    assert len(pd.read_csv(tmp_path / "made" / "marking.csv")) == len(made) == 40
    assert {Image.open(path).size for path in made} == {(512, 512)}
    with zipfile.ZipFile(real_data / "melanoma-512.zip") as archive:
        real = [one.file_size for one in archive.infolist() if one.filename.endswith(".jpg")]
    assert np.mean([path.stat().st_size for path in made]) == pytest.approx(np.mean(real), rel=0.1)
