"""bench/real_photographs.py: each idea changes what it says and nothing else, and the tables are of the files."""

import dataclasses
import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from helpers.audit.evidence import turn
from helpers.model import AttnVGG
from helpers.scores.baselines import baselines
from helpers.training.settings import Settings
from tests.conftest import PROJECT

sys.path.insert(0, str(PROJECT / "bench"))
import real_photographs  # noqa: E402

SMALL = Settings(image_size=32, epochs=1, batch_size=12, precision="fp32", seed=0)


@pytest.fixture
def images():
    return torch.randn(4, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def build(**changes) -> real_photographs.Changed:
    torch.manual_seed(0)
    return real_photographs.Changed(**changes)


def gradients(network: AttnVGG, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the sum of the logits, by parameter. In evaluation mode: batch norm's statistics stay as they are."""
    network.eval()(images).logits.sum().backward()
    return {name: one.grad for name, one in network.named_parameters()}


@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "none"])
def test_without_changes_it_is_the_series_network(images, attention):
    torch.manual_seed(0)
    plain = AttnVGG(attention=attention).eval()
    ours = build(attention=attention).eval()
    with torch.no_grad():
        for one, other in zip(ours(images), plain(images), strict=True):
            assert one is other is None or torch.equal(one, other)


def test_a_detached_guide_reads_and_does_not_teach(images):
    found, plain = (gradients(build(detached=detached), images) for detached in (True, False))
    torch.testing.assert_close(
        found["attention3.guide_projection.weight"], plain["attention3.guide_projection.weight"]
    )
    assert not torch.allclose(found["backbone.40.weight"], plain["backbone.40.weight"])
    alone = gradients(
        build(detached=True, alone=True), images
    )  # then nothing else teaches the last block
    assert alone["backbone.40.weight"] is None and alone["backbone.30.weight"].abs().sum() > 0


def test_attended_vectors_alone_reach_the_classifier(images):
    network = build(alone=True).eval()
    seen = []
    network.classifier.register_forward_hook(lambda layer, given, made: seen.append(given[0]))
    with torch.no_grad():
        network(images)
        _, _, vector3, _, vector4 = network.look(images)
    assert torch.equal(seen[0], torch.cat([vector3, vector4], dim=1)) and seen[0].shape == (
        4,
        256 + 512,
    )


def test_before_pooling_maps_have_twice_the_side(images):
    with torch.no_grad():
        found = build(before_pooling=True).eval()(images)
    assert found.pool3_map.shape == (4, 1, 16, 24) and found.pool4_map.shape == (4, 1, 8, 12)


def test_mirrored_padding_hides_where_the_photograph_ends():
    plain, mirrored = build().eval(), build(mirrored=True).eval()
    one_colour = torch.full((1, 3, 64, 64), 0.7)
    with torch.no_grad():
        pool3, edged = mirrored.backbone[:24](one_colour), plain.backbone[:24](one_colour)
    torch.testing.assert_close(pool3, pool3[:, :, :1, :1].expand_as(pool3))
    assert edged.std(dim=(2, 3)).max() > 0.01  # with zeros around it the edge shows


def test_the_second_loss_is_the_distance_between_a_map_and_that_of_the_turned_photograph(
    images, monkeypatch
):
    images = images[..., :64]
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(5))
    network = build(turned=0.3).train()
    for layer in network.backbone:
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()  # else one photograph's features depend on the others
    network(images).logits.sum().backward()
    found = {name: one.grad.clone() for name, one in network.named_parameters()}
    network.zero_grad()
    network.turned = 0
    straight, turned = network(images), network(turn(images[::2], 5))
    apart = 0.0
    for name in ("pool3_map", "pool4_map"):
        for number in range(2):
            back = turn(getattr(turned, name)[number], 5, back=True)
            apart = apart + (getattr(straight, name)[2 * number] - back).abs().sum() / 2 / 2
    (straight.logits.sum() + 0.3 * apart).backward()
    for name, one in network.named_parameters():
        torch.testing.assert_close(found[name], one.grad, rtol=1e-3, atol=1e-5, msg=name)
    assert not build(turned=0.3).eval()(images).logits.grad_fn.name().startswith("AddLoss")


def test_a_sigmoid_map_starts_where_it_is_told(images):
    with torch.no_grad():
        low, plain = (
            build(attention="sigmoid", start=start).eval()(images).pool4_map for start in (0.1, 0.0)
        )
    torch.testing.assert_close(low.logit(), plain.logit() + np.log(0.1 / 0.9), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "changes", "maps"),
    [
        ("no attention", {}, []),
        ("attended vectors alone", {"alone": True}, ["attention_pool3", "attention_pool4"]),
    ],
)
def test_a_network_is_trained_and_measured_on_the_test_photographs_with_a_mask(
    made, name, changes, maps
):
    split = made.split.copy()
    bare = split.index[(split["split"] == "test") & (split["mask"] != "")][:3]
    split.loc[bare, "mask"] = ""
    found = real_photographs.measure(name, SMALL, split, made.photographs())
    test = pd.DataFrame(found["test"])
    assert set(test["image_id"]) == set(made.used["image_id"].iloc[made.test])
    assert found["auc"]["auc"] == pytest.approx(roc_auc_score(test["target"], test["logit"]))
    for where in ("whole", "shifted"):
        assert list(found["localisation"][where]) == [
            *maps,
            "grad_cam",
            "centre",
            "uniform",
            "otsu",
        ]
    rows = [
        row for row in made.test if made.used["image_id"][row] not in set(split["image_id"][bare])
    ]
    uniform = found["localisation"]["whole"]["uniform"]
    assert uniform["n"] == len(rows) == len(made.test) - 3
    assert uniform["energy"] == pytest.approx(
        np.mean(made.photographs().masks[rows] > 127), abs=0.02
    )
    assert json.loads(json.dumps(found))["changes"] == changes


@pytest.mark.parametrize(("masked", "count"), [(False, 40), (True, 10)])
def test_photographs_without_a_mask_are_left_out_where_asked(photographs, masked, count):
    split, cached = real_photographs.prepare(
        photographs, SMALL, {"benign": 0, "split_seed": 42}, masked=masked
    )
    assert len(split) == len(cached.masks) == count and (split["mask"] != "").sum() == 10


def test_beside_the_networks_stand_the_baselines_that_see_no_lesion(made, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTENTION_RUNS", str(tmp_path))
    dataset = json.loads((made.prepare("blind") / "dataset.json").read_text())
    lines = real_photographs.blind(dataset, made.split).splitlines()
    table = baselines(dataset, made.split)
    expected = {
        name: roc_auc_score(table["target"], table[name]) for name in table if name.endswith("only")
    }
    assert "source only" in expected and len(lines) == 2 + len(expected)
    assert [line.split(" (")[0] for line in lines[2:]] == [
        f"| {name} | {auc:.3f}".replace("| 0.", "| .") for name, auc in expected.items()
    ]


def put(folder, network: str, seed: int, logits: list[float], energy: float) -> None:
    """What `measure` would leave, of four test photographs."""
    figures = {"hits": 1 - energy, "energy": energy, "iou": energy / 2}
    looks = {
        name: figures
        for name in real_photographs.MAPS
        if network != "no attention" or name == "grad_cam"
    }
    looks |= {name: {"hits": 0.75, "energy": 0.25, "iou": 0.2} for name in real_photographs.BESIDE}
    test = {
        "image_id": list("abcd"),
        "group": list("abcd"),
        "source": list("STST"),
        "target": [1, 1, 0, 0],
        "logit": logits,
    }
    settings = dataclasses.asdict(dataclasses.replace(SMALL, seed=seed))
    (folder / f"{network}-{seed}.json").write_text(
        json.dumps(
            {
                "format": 1,
                "network": network,
                "seed": seed,
                "settings": settings,
                "test": test,
                "localisation": {"whole": looks, "shifted": looks},
            }
        )
    )


def test_the_tables_have_a_figure_for_each_seed_and_pairs_with_the_same_seed(tmp_path):
    put(tmp_path, "softmax", 1, [1, 2, 0, 3], 0.5)  # AUC 0.5
    put(tmp_path, "softmax", 0, [3, 2, 1, 0], 0.125)  # 1
    put(tmp_path, "detached guide", 0, [3, 1, 2, 0], 0.75)  # 0.75: a quarter less
    put(tmp_path, "no attention", 1, [3, 2, 1, 0], 0.25)  # 1: softmax has half less with this seed
    scores, looks = (
        part.splitlines()
        for part in real_photographs.tables(real_photographs.load(tmp_path, list("abcd"))).split(
            "\n\n"
        )
    )
    assert scores[0] == (
        "| network | seeds | AUC (95%) | within source | less no attention (95%) | "
        "less softmax (95%) |"
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in scores[2:]]
    assert [line[:2] for line in cells] == [
        ["no attention", "1"],
        ["softmax", "0, 1"],
        ["detached guide", "0"],
    ]
    assert [one.split(" (")[0] for one in cells[1][2].split("), ")] == ["1.000", ".500"]
    assert [line[3] for line in cells] == [
        "1.000",
        "1.000, .500",
        "1.000",
    ]  # of a with c, and of b with d
    assert [[cell.split(" (")[0] for cell in line[4:]] for line in cells] == [
        ["", "+0.500"],
        ["-0.500", ""],
        ["", "-0.250"],
    ]
    assert looks[2:5] == [
        "| no attention | Grad-CAM | .750 | .250 | .125 | .750 | .250 |",
        "| softmax | pool-3 | .875, .500 | .125, .500 | .062, .250 | .875, .500 | .125, .500 |",
        "| softmax | pool-4 | .875, .500 | .125, .500 | .062, .250 | .875, .500 | .125, .500 |",
    ]
    assert [line.split(" | ")[1] for line in looks[-3:]] == list(real_photographs.BESIDE.values())


def test_networks_tested_on_different_photographs_are_not_compared(tmp_path):
    put(tmp_path, "softmax", 0, [3, 2, 1, 0], 0.5)
    with pytest.raises(
        SystemExit, match="softmax-0.json was tested on 4 photographs and not on these 3"
    ):
        real_photographs.load(tmp_path, list("abc"))


def test_files_of_other_parameters_are_not_compared(tmp_path):
    put(tmp_path, "softmax", 0, [3, 2, 1, 0], 0.5)
    real_photographs.check(tmp_path / "softmax-0.json", SMALL, {})
    with pytest.raises(SystemExit, match="was trained with another epochs, learning_rate"):
        longer = dataclasses.replace(SMALL, epochs=2, learning_rate=1e-4)
        real_photographs.check(tmp_path / "softmax-0.json", longer, {})
