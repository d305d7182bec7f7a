"""The loop and its predictions on a small drawn set, against scikit-learn and plain loops."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchvision.ops import sigmoid_focal_loss

from helpers import workspace
from helpers.model import AttnVGG
from helpers.photographs.cache import build_cache, cache_side
from helpers.training import loop
from helpers.training.augment import plain, warp_masks
from helpers.training.batches import Photographs, otsu
from helpers.training.loop import fit, predict, predict_held_out
from helpers.training.loss import dice_loss
from helpers.training.settings import RECIPES, Settings

CPU = torch.device("cpu")
COLUMNS = ["epoch", "train_loss", "train_auc", "val_loss", "val_auc", "learning_rate"]
SMALL = Settings(image_size=32, epochs=1, batch_size=12, precision="fp32")


def quiet(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")


def state_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# one run


def test_the_history_has_a_row_an_epoch_and_finite_figures(fitted):
    assert list(fitted.history) == COLUMNS and fitted.history["epoch"].tolist() == [1, 2]
    assert np.isfinite(fitted.history.to_numpy()).all()
    assert fitted.history[["train_auc", "val_auc"]].stack().between(0, 1).all()
    assert fitted.history["learning_rate"].iloc[-1] < 1e-6  # the end of the cycle
    assert set(fitted.timing) == {
        "device",
        "precision",
        "seconds",
        "images_per_second",
        "peak_memory_bytes",
    }
    assert (fitted.timing["device"], fitted.timing["precision"]) == ("cpu", "float32")


def plain_logits(network: AttnVGG, made: SimpleNamespace, rows: np.ndarray) -> np.ndarray:
    """Logits in evaluation mode, a photograph at a time, from stored pixels and torch's resize."""
    network.eval()
    found = []
    for row in rows:
        pixels = (
            torch.from_numpy(np.load(made.cache["file"])[row]).permute(2, 0, 1)[None].float() / 255
        )
        image = torch.nn.functional.interpolate(
            pixels, (32, 32), mode="bilinear", align_corners=False
        )
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        with torch.no_grad():
            found.append(network((image - mean.view(3, 1, 1)) / std.view(3, 1, 1)).logits.item())
    return np.array(found)


def test_the_kept_networks_figures_are_scikit_learns_over_all_validation_rows_in_eval_mode(
    fitted, made
):
    assert not fitted.network.training
    logits = plain_logits(fitted.network, made, made.val)
    target = made.used["target"].to_numpy()[made.val]
    kept = fitted.history.set_index("epoch").loc[fitted.config["epoch"]]
    assert kept["val_auc"] == pytest.approx(roc_auc_score(target, logits), abs=1e-9)
    loss = sigmoid_focal_loss(torch.tensor(logits), torch.tensor(target).double(), -1, 2, "mean")
    assert kept["val_loss"] == pytest.approx(loss.item(), rel=1e-3)
    assert kept["val_auc"] == fitted.history["val_auc"].max()


def test_predictions_of_val_and_test_are_the_networks(fitted, made):
    table = predict_held_out(fitted, made.split, made.photographs(), "fp32")
    assert list(table) == ["image_id", "split", "source", "group", "target", "logit"]
    held = made.used[made.used["split"] != "train"]
    pd.testing.assert_frame_equal(
        table.drop(columns="logit"), held[list(table)[:-1]].reset_index(drop=True)
    )
    np.testing.assert_allclose(
        table["logit"], plain_logits(fitted.network, made, held.index.to_numpy()), atol=1e-4
    )


def test_predict_changes_nothing_and_does_not_depend_on_the_batches(fitted, made):
    network = copy.deepcopy(fitted.network).train()
    before = state_of(network)
    rows = made.val[::-1].copy()
    whole, parts = (
        predict(network, made.photographs(), rows, fitted.config, torch.float32, batch_size=size)
        for size in (64, 5)
    )
    assert equal(before, network.state_dict())  # batch norm's running statistics are in it
    assert whole.shape == (len(rows),) and whole.dtype == torch.float32 and not whole.requires_grad
    torch.testing.assert_close(whole, parts, atol=1e-4, rtol=0)
    assert predict(network, made.photographs(), rows[:0], fitted.config, torch.float32).shape == (
        0,
    )


def test_who_looks_after_each_epoch_sees_its_network_and_changes_nothing(fitted, made):
    seen = []

    def look(epoch: int, network: torch.nn.Module, config: dict) -> None:
        assert not network.training
        logits = predict(network, made.photographs(), made.val, config, torch.float32)
        target = made.used["target"].to_numpy()[made.val]
        seen.append((epoch, roc_auc_score(target, logits)))

    settings = dataclasses.replace(SMALL, epochs=2)
    again = fit(settings, made.split, made.photographs(), report=quiet, after_epoch=look)
    assert equal(again.network.state_dict(), fitted.network.state_dict())
    assert seen == list(zip([1, 2], fitted.history["val_auc"], strict=True))


def test_the_first_epochs_train_on_small_pictures_and_masks(made, monkeypatch, tmp_path):
    monkeypatch.setenv("ATTENTION_DATA", str(tmp_path))
    cache = build_cache(made.dataset, made.split, image_size=64)
    seen = []

    def watch(output, batch):
        assert batch.masks.shape[2:] == batch.images.shape[2:]
        seen.append(batch.images.shape[3])
        return 0.0

    small = RECIPES["one_cycle"]._replace(small=0.5)
    monkeypatch.setitem(RECIPES, "one_cycle", small)
    monkeypatch.setattr("helpers.training.settings.SMALLEST", 32)
    settings = dataclasses.replace(
        SMALL, image_size=64, epochs=2, attention="sigmoid", mask_weight_pool3=0.1
    )
    fitted = fit(settings, made.split, Photographs(cache, CPU), report=quiet, extra_loss=watch)
    assert seen == sorted(seen) and set(seen) == {32, 64}
    assert seen.count(32) == seen.count(64)
    assert fitted.config["image_size"] == 64


def test_the_bar_counts_what_each_epoch_costs_and_goes_on_where_a_cut_training_was(
    made, monkeypatch, tmp_path
):
    """The first of three epochs sees pictures of half the side: a quarter of the work."""
    bars = []
    progress = workspace.progress

    def kept(*arguments, **options):
        bars.append(progress(*arguments, **options))
        return bars[-1]

    def stop(epoch: int, network: AttnVGG, config: dict) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setenv("ATTENTION_DATA", str(tmp_path))
    monkeypatch.setenv("ATTENTION_HEADLESS", "0")
    monkeypatch.setattr(workspace, "progress", kept)
    monkeypatch.setitem(RECIPES, "one_cycle", RECIPES["one_cycle"]._replace(small=0.34))
    monkeypatch.setattr("helpers.training.settings.SMALLEST", 32)
    photographs = Photographs(build_cache(made.dataset, made.split, image_size=64), CPU)
    bars.clear()  # of the cache
    settings = dataclasses.replace(SMALL, image_size=64, epochs=3)
    again = {"report": quiet, "progress": tmp_path / "progress.pt"}
    with pytest.raises(KeyboardInterrupt):
        fit(settings, made.split, photographs, after_epoch=stop, **again)
    fit(settings, made.split, photographs, **again)
    first, second = bars
    learned, validated = 3 * 64**2 * len(made.train), 64**2 * len(made.val)
    assert first.total == second.total == 2.25 * learned + 3 * validated
    assert first.n == 1.25 * learned + 2 * validated
    assert second.initial == 0.25 * learned + validated and second.n == second.total


def test_equal_runs_are_equal_to_the_bit_and_another_seed_is_another_run(fitted, made):
    settings = dataclasses.replace(SMALL, epochs=2)
    lines = []
    torch.rand(7), np.random.rand(3)  # whatever was drawn before does not matter
    again = fit(settings, made.split, made.photographs(), report=lines.append)
    pd.testing.assert_frame_equal(again.history, fitted.history, check_exact=True)
    assert (
        equal(again.network.state_dict(), fitted.network.state_dict())
        and again.config == fitted.config
    )
    assert len(lines) == 2 and lines[1].startswith("epoch  2/2") and "val_auc" in lines[1]
    other = fit(dataclasses.replace(SMALL, seed=7), made.split, made.photographs(), report=quiet)
    assert not torch.equal(
        other.network.state_dict()["backbone.0.weight"],
        fitted.network.state_dict()["backbone.0.weight"],
    )


def test_the_config_rebuilds_and_feeds_the_network(fitted):
    expected = {
        "format": 1,
        "classes": 1,
        "attention": "softmax",
        "dropout": 0.0,
        "image_size": 32,
        "weights": "none",
        "recipe": "one_cycle",
        "seed": 42,
        "view": 1.0,
        "colour_order": "rgb",
        "mask_target": "lesion",
    }
    assert expected.items() <= fitted.config.items()
    assert fitted.config["mean"] == (0.485, 0.456, 0.406) and fitted.config["std"] == (
        0.229,
        0.224,
        0.225,
    )


class Watched(Photographs):
    """Photographs that remember the batches they were asked for."""

    def __init__(self, cache: dict):
        super().__init__(cache, CPU)
        self.epochs = []

    def stream(self, batches):
        self.epochs.append([rows.copy() for rows in batches])
        return super().stream(batches)


@pytest.mark.parametrize(
    "epochs_auc, kept", [((0.6, 0.9, 0.7), 2), ((0.5, 0.8, 0.8), 2), ((0.4, 0.3, 0.2), 1)]
)
def test_the_best_epoch_is_kept(epochs_auc, kept, made, monkeypatch):
    states, real = [], predict

    def watch(network, *arguments, **options):
        states.append(network.state_dict()["classifier.weight"].clone())
        return real(network, *arguments, **options)

    monkeypatch.setattr(loop, "predict", watch)
    scripted = iter(epochs_auc)
    monkeypatch.setattr(
        loop,
        "roc_auc_score",
        lambda truth, scores: next(scripted) if len(truth) == len(made.val) else 0.5,
    )
    small = made.split[
        (made.split["split"] != "train") | (made.split.index % 2 == 0)
    ]  # fewer to train on
    assert set(small.loc[small["split"] == "train", "target"]) == {0, 1}
    cache = {**made.cache, "masks_file": ""}
    found = fit(dataclasses.replace(SMALL, epochs=3), small, Photographs(cache, CPU), report=quiet)
    assert found.config["epoch"] == kept and len(states) == 3
    assert torch.equal(found.network.state_dict()["classifier.weight"], states[kept - 1])
    assert not torch.equal(states[0], states[1]) and not torch.equal(states[1], states[2])


def test_an_epoch_takes_every_training_row_once_in_an_order_of_its_own(made):
    photographs = Watched(made.cache)
    fit(dataclasses.replace(SMALL, epochs=2, batch_size=10), made.split, photographs, report=quiet)
    first, _, second, _ = photographs.epochs  # validation comes after each
    for epoch in (first, second):
        assert sorted(np.concatenate(epoch)) == made.train.tolist()
        sizes = [len(rows) for rows in epoch]
        assert max(sizes) <= 10 and max(sizes) - min(sizes) <= 1
    assert np.concatenate(first).tolist() != np.concatenate(second).tolist()


def test_the_papers_recipe_shows_melanomas_four_times_and_normalises_by_the_set(made):
    photographs = Watched(made.cache)
    settings = dataclasses.replace(
        SMALL, recipe="paper", attention="sigmoid", batch_size=30, dropout=0.5
    )
    found = fit(settings, made.split, photographs, report=quiet)
    rows, counts = np.unique(np.concatenate(photographs.epochs[0]), return_counts=True)
    assert rows.tolist() == made.train.tolist()
    assert counts.tolist() == np.where(made.used["target"][made.train] == 1, 4, 1).tolist()
    pixels = np.load(made.cache["file"])[made.train].astype(float) / 255
    assert found.config["mean"] == pytest.approx(
        [pixels[..., channel].mean() for channel in range(3)], abs=1e-4
    )
    assert found.config["std"] == pytest.approx(
        [pixels[..., channel].std() for channel in range(3)], abs=1e-4
    )
    assert found.config["view"] == 0.7 and found.network.dropout.p == 0.5
    assert found.timing["images_per_second"] * found.timing["seconds"] == pytest.approx(
        counts.sum()
    )


# masks


def dice_now(network: AttnVGG, made: SimpleNamespace, config: dict) -> tuple[float, float]:
    """Mean Dice loss of both maps on the training photographs' lesions, and on what is around."""
    images, masks = made.photographs().evaluation(made.train, config)
    with torch.no_grad():
        output = network.train()(images)
    maps = output.pool3_map, output.pool4_map
    return tuple(
        sum(dice_loss(one, wanted).mean().item() for one in maps) / 2
        for wanted in (masks, 1 - masks)
    )


def test_masks_put_the_maps_on_the_lesion_and_the_papers_control_off_it(made, monkeypatch):
    rising = iter(np.linspace(0.1, 0.9, 100))
    monkeypatch.setattr(
        loop, "roc_auc_score", lambda truth, scores: next(rising)
    )  # the last epoch is kept
    settings = dataclasses.replace(
        SMALL,
        epochs=2,
        recipe="paper",
        attention="sigmoid",
        mask_weight_pool3=1.0,
        mask_weight_pool4=1.0,
    )
    found = {}
    for target in ("lesion", "background"):
        run = fit(
            dataclasses.replace(settings, mask_target=target),
            made.split,
            made.photographs(),
            report=quiet,
        )
        found[target] = dice_now(run.network, made, run.config)
    torch.manual_seed(settings.seed)
    found["before"] = dice_now(AttnVGG(attention="sigmoid"), made, run.config)
    assert found["lesion"][0] < found["before"][0] - 0.1, found
    assert found["background"][1] < found["before"][1] - 0.1, found
    assert found["background"][1] < found["lesion"][1] - 0.2, (
        found
    )  # a map that is 1 everywhere does not do for both


def test_without_masks_the_maps_learn_otsus_guess_of_every_photograph(made, monkeypatch):
    seen = []
    monkeypatch.setattr(
        loop,
        "mask_loss",
        lambda maps, masks, masked, weights, reduction: (
            seen.append((masks, masked)) or 0 * maps[0].sum()
        ),
    )
    monkeypatch.setattr(loop, "draw", lambda count, *_: plain(count))
    settings = dataclasses.replace(
        SMALL, attention="sigmoid", mask_weight_pool3=0.5, mask_target="otsu"
    )
    photographs = Watched({**made.cache, "masks_file": ""})
    fit(settings, made.split.assign(mask=""), photographs, report=quiet)
    assert photographs.masks is None  # the reader's photographs are as they were
    for (masks, masked), rows in zip(seen, photographs.epochs[0], strict=True):
        guesses = np.stack([otsu(photographs.pixels[row]) for row in rows])
        wanted = warp_masks(torch.from_numpy(guesses), plain(len(rows)), 32)
        torch.testing.assert_close(masks, wanted)
        assert masked.all() and 0 < masks.mean() < 1


def test_only_photographs_with_a_mask_are_held_to_one(made, monkeypatch):
    seen = []
    monkeypatch.setattr(
        loop,
        "mask_loss",
        lambda maps, masks, masked, weights, reduction: (
            seen.append((masks, masked, weights)) or 0 * maps[0].sum()
        ),
    )
    split = made.split.assign(mask=made.split["mask"].where(made.split.index % 2 == 0, ""))
    settings = dataclasses.replace(
        SMALL, attention="sigmoid", recipe="tutorial", mask_weight_pool4=0.5
    )
    photographs = Watched(made.cache)
    fit(settings, split, photographs, report=quiet)
    used = split[split["kept"] == 1]
    for (masks, masked, weights), rows in zip(seen, photographs.epochs[0], strict=True):
        assert masked.tolist() == (used["mask"].to_numpy()[rows] != "").astype(float).tolist()
        assert masks.shape == (len(rows), 1, 32, 32) and weights == (0.0, 0.5)


# a network and a loss of one's own


def test_a_given_network_is_trained_in_place_from_the_weights_it_has(made):
    torch.manual_seed(3)
    network = AttnVGG()
    network.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    before = state_of(network)
    fitted = fit(SMALL, made.split, made.photographs(), report=quiet, network=network)
    assert fitted.network is network
    after = network.state_dict()
    assert not torch.equal(before["backbone.0.weight"], after["backbone.0.weight"])
    assert torch.equal(before["frozen"], after["frozen"])
    moved = (before["backbone.0.weight"] - after["backbone.0.weight"]).abs().max()
    assert moved < 0.01, "one epoch from its own weights, not from new ones"


def test_a_new_network_given_is_the_same_as_none(made):
    torch.manual_seed(SMALL.seed)
    network = AttnVGG()
    ours = fit(SMALL, made.split, made.photographs(), report=quiet, network=network)
    theirs = fit(SMALL, made.split, made.photographs(), report=quiet)
    assert equal(ours.network.state_dict(), theirs.network.state_dict())
    assert ours.config["made_from"] != theirs.config["made_from"], "one was brought, one was not"


class Little(torch.nn.Module):
    """Not AttnVGG, but like it in what it returns."""

    def __init__(self):
        super().__init__()
        self.classifier = torch.nn.Linear(3, 1)

    def forward(self, images: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.classifier(images.mean(dim=(2, 3))))


def test_any_network_with_logits_can_be_trained_and_its_config_names_it(made):
    fitted = fit(SMALL, made.split, made.photographs(), report=quiet, network=Little())
    assert fitted.config["network"] == "Little" and type(fitted.network) is Little
    table = predict_held_out(fitted, made.split, made.photographs())
    assert table["logit"].notna().all() and len(table) == len(made.val) + len(made.test)


def test_the_config_of_a_given_network_describes_it_and_not_the_settings(made):
    network = AttnVGG(attention="none", dropout=0.25)
    fitted = fit(SMALL, made.split, made.photographs(), report=quiet, network=network)
    assert (fitted.config["attention"], fitted.config["dropout"]) == ("none", 0.25)


def test_an_extra_loss_is_added_to_every_step(made):
    seen = []

    def lift(output, batch):
        assert len(output.logits) == len(batch.images) == len(batch.targets) == batch.size
        seen.append(batch.size)
        return 10.0 * (output.logits - 5).square().sum() / batch.size

    settings = dataclasses.replace(SMALL, epochs=3, recipe="tutorial")
    lifted = fit(settings, made.split, made.photographs(), report=quiet, extra_loss=lift)
    free = fit(settings, made.split, made.photographs(), report=quiet)
    assert sum(seen) == 3 * len(made.train)
    highest, usual = (
        predict(run.network, made.photographs(), made.train, run.config, torch.float32).mean()
        for run in (lifted, free)
    )
    assert highest > usual + 0.05, "logits near 5 cost less"


def test_an_extra_loss_of_zero_changes_nothing(made):
    settings = dataclasses.replace(SMALL, attention="sigmoid")
    plain_run, same = (
        fit(settings, made.split, made.photographs(), report=quiet, extra_loss=extra)
        for extra in (None, lambda output, batch: 0 * output.pool3_map.sum())
    )
    assert equal(plain_run.network.state_dict(), same.network.state_dict())


def test_progress_with_an_extra_loss_is_refused(made, tmp_path):
    with pytest.raises(ValueError, match="progress.*extra_loss"):
        fit(
            SMALL,
            made.split,
            made.photographs(),
            progress=tmp_path / "progress.pt",
            extra_loss=lambda output, batch: output.logits.sum(),
        )


# what shaped a network, and how sharply it sees


def test_the_config_records_what_the_network_was_made_from(fitted, made, tmp_path):
    made_from = fitted.config["made_from"]
    assert made_from["photographs"] == made.cache["key"] and made_from["weights"] == ""
    assert made_from["torch"] == str(torch.__version__) and made_from["training"] >= 2
    settings = dataclasses.asdict(SMALL)
    assert all(made_from[name] == settings[name] for name in ("seed", "recipe", "batch_size"))
    assert (made_from["precision"], made_from["device"]) == ("float32", "cpu")


@pytest.mark.parametrize(
    "recipe, stored, said",
    [
        ("one_cycle", 36, False),
        ("tutorial", 64, False),
        ("tutorial", 73, True),  # for one more than twice as large
        ("paper", 36, True),  # for a recipe that sees all: this one sees 25 of 36
        ("paper", cache_side(32, 0.7), False),
    ],
)
def test_a_cache_of_another_size_than_the_network_takes_is_said(recipe, stored, said, made):
    lines = []
    training = SimpleNamespace(
        settings=dataclasses.replace(SMALL, recipe=recipe),
        recipe=RECIPES[recipe],
        photographs=SimpleNamespace(side=stored),
    )
    loop.compare_sizes(training, lines.append)
    assert bool(lines) is said
    if said:
        facts = ("02_preprocess", "image_size 32", str(stored), repr(recipe))
        assert all(fact in lines[0] for fact in facts)


@pytest.mark.parametrize("recipe", RECIPES)
def test_photographs_stored_for_a_smaller_network_are_refused(recipe, made):
    settings = dataclasses.replace(SMALL, recipe=recipe, image_size=64)
    with pytest.raises(ValueError, match="02_preprocess") as error:
        fit(settings, made.split, made.photographs(), report=quiet)
    assert all(fact in str(error.value) for fact in ("36", "image_size 64", repr(recipe)))


@pytest.mark.parametrize("side", [32, 96, 224, 512])
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_02_stores_for_a_recipe_is_as_sharp_as_the_network_takes(recipe, side):
    stored = cache_side(side, RECIPES[recipe].view)
    training = SimpleNamespace(
        settings=dataclasses.replace(SMALL, recipe=recipe, image_size=side),
        recipe=RECIPES[recipe],
        photographs=SimpleNamespace(side=stored),
    )
    loop.compare_sizes(training, pytest.fail)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="peak memory is a GPU's")
def test_peak_memory_is_the_trainings_own(made):
    photographs = Photographs(made.cache, torch.device("cuda"))
    large = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    del large
    fitted = fit(SMALL, made.split, photographs, report=quiet)
    assert 0 < fitted.timing["peak_memory_bytes"] < 2**31


# what goes wrong


def test_masks_that_are_not_there_are_asked_for(made):
    settings = dataclasses.replace(SMALL, attention="sigmoid", mask_weight_pool3=0.1)
    with pytest.raises(
        ValueError, match="mask_weight_pool3.*no training photograph.*`masks`.*01_download.ipynb"
    ):
        fit(
            settings, made.split.assign(mask=""), Photographs({**made.cache, "masks_file": ""}, CPU)
        )


@pytest.mark.parametrize("side", ["train", "val"])
@pytest.mark.parametrize("target", [0, 1])
def test_a_side_without_a_class_is_refused_by_name(side, target, made):
    lacking = made.split.assign(
        target=made.split["target"].where(made.split["split"] != side, target)
    )
    with pytest.raises(ValueError, match=f"^{side} holds"):
        fit(SMALL, lacking, made.photographs())


@pytest.mark.parametrize(
    "batch_size", [12, 1000]
)  # of one batch the loss is finite, the network after it not
def test_a_loss_that_is_not_finite_stops_the_run(batch_size, made):
    settings = dataclasses.replace(SMALL, recipe="paper", learning_rate=1e30, batch_size=batch_size)
    batch = (
        "batch 2 of 7" if batch_size == 12 else "batch 1 of 1"
    )  # the first that the overflown network answered
    with pytest.raises(FloatingPointError, match=f"epoch 1, {batch}.*not finite.*learning_rate"):
        fit(settings, made.split, made.photographs(), report=quiet)
