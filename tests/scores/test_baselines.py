"""Guesses without shape, against rates counted by hand, known colours and the real table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from helpers.photographs import sources
from helpers.photographs.sample import make_sample
from helpers.photographs.split import balance, group_rows, make_split, split_groups
from helpers.photographs.table import read_marking
from helpers.scores import baselines as module  # the function has its name
from helpers.scores.baselines import baselines, colours, rim, table_baselines, whole_and_rim

COLUMNS = ["image_id", "source", "group", "target"]
NAMES = [
    "source only",
    "metadata only",
    "rim colours only",
    "mean colours only",
    "file size only",
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The built-in sample with its split: (dataset, split)."""
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    make_sample(folder)
    dataset = sources.find_dataset(str(folder))
    return dataset, make_split(dataset, benign=150)


def made_up(count: int, seed: int = 0) -> pd.DataFrame:
    """A table in which source, age and site each say something, with missing values."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "image_id": [f"X_{number}" for number in range(count)],
            "group": range(count),
            "source": rng.choice(["A", "B", "C"], count),
            "sex": rng.choice(["male", "female"], count),
            "age_approx": rng.integers(4, 18, count) * 5.0,
            "anatom_site_general_challenge": rng.choice(["torso", "head/neck"], count),
        }
    )
    odds = table["source"].map({"A": 0.1, "B": 0.3, "C": 0.6}) + 0.4 * (
        abs(table["age_approx"] - 50) > 20
    )
    table["target"] = (rng.random(count) < odds).astype(int)
    for column in ("sex", "age_approx", "anatom_site_general_challenge"):
        table.loc[rng.random(count) < 0.2, column] = np.nan
    return table.assign(split=rng.choice(["train", "val", "test"], count, p=[0.6, 0.2, 0.2]))


# the table alone


def test_source_only_is_the_rate_of_the_source_in_train():
    table = made_up(2000)
    scores = table_baselines(table)
    rates = table[table["split"] == "train"].groupby("source")["target"].mean()
    expected = scores["source"].map(rates).to_numpy()
    assert scores["source only"].to_numpy() == pytest.approx(expected, abs=0.01)
    for _, rows in scores.groupby("source"):
        assert rows["source only"].nunique() == 1


def test_metadata_takes_missing_values_and_beats_the_source_where_age_says_something():
    table = made_up(4000)
    scores = table_baselines(table)
    assert list(scores) == COLUMNS + NAMES[:2]
    assert scores["image_id"].tolist() == table.loc[table["split"] == "test", "image_id"].tolist()
    assert scores.notna().all(axis=None)
    source = roc_auc_score(scores["target"], scores["source only"])
    metadata = roc_auc_score(scores["target"], scores["metadata only"])
    assert metadata > source + 0.03


def test_only_train_is_fitted_and_test_targets_are_not_seen():
    table = made_up(1000)
    train = table["split"] == "train"
    first = table_baselines(table)
    elsewhere = table["target"].where(train, 1 - table["target"])
    again = table_baselines(table.assign(target=elsewhere))
    pd.testing.assert_frame_equal(first[NAMES[:2]], again[NAMES[:2]])
    only_in_a = table["target"].where(~train, (table["source"] == "A").astype(int))
    other = table_baselines(table.assign(target=only_in_a))
    assert (other.loc[other["source"] == "A", "source only"] > 0.9).all()


def test_another_column_may_hold_the_split():
    table = made_up(500)
    renamed = table.rename(columns={"split": "theirs"}).assign(split="train")
    pd.testing.assert_frame_equal(table_baselines(renamed, split="theirs"), table_baselines(table))


@pytest.mark.parametrize(
    "absent", [["sex"], ["age_approx"], ["sex", "age_approx", "anatom_site_general_challenge"]]
)
@pytest.mark.parametrize("how", ["no column", "no value"])
def test_columns_that_are_missing_or_empty_are_left_out(absent, how):
    table = made_up(500)
    if how == "no column":
        table = table.drop(columns=absent)
    else:
        table[absent] = np.nan
    scores = table_baselines(table)
    assert scores[NAMES[:2]].notna().all(axis=None)
    if len(absent) == 3:
        assert scores["metadata only"].tolist() == scores["source only"].tolist()


def test_a_source_that_train_lacks_has_a_score_too():
    table = made_up(500)
    table.loc[table["split"] == "test", "source"] = "D"
    assert table_baselines(table)["source only"].between(0, 1).all()


# shortcuts that rest on a few rows


def in_half(melanomas: int, benign: int) -> pd.DataFrame:
    """As many rows in test as in train, whose age, sex and site say nothing."""
    rng = np.random.default_rng(0)
    target = np.repeat([1, 0, 1, 0], [melanomas, benign] * 2)
    count = len(target)
    return pd.DataFrame(
        {
            "image_id": [f"X_{number}" for number in range(count)],
            "group": range(count),
            "split": np.repeat(["train", "test"], count // 2),
            "source": "OLD",
            "sex": rng.choice(["male", "female"], count),
            "age_approx": rng.integers(4, 18, count) * 5.0,
            "anatom_site_general_challenge": rng.choice(["torso", "head/neck"], count),
            "target": target,
        }
    )


def clinics_of_two(melanoma: pd.Series) -> np.ndarray:
    """Melanomas come from clinics that sent two each, the others from one."""
    order = melanoma.groupby(melanoma.index // (len(melanoma) // 2)).cumsum()
    return np.where(melanoma, "NEW_" + ((order - 1) // 2).astype(str), "OLD")


SHORTCUTS = {
    "a source": ("source", lambda melanoma: np.where(melanoma, "NEW", "OLD")),
    "sources of two": ("source", clinics_of_two),
    "a source of its own for each benign": (
        "source",
        lambda melanoma: np.where(
            melanoma, "NEW", (melanoma.index % (len(melanoma) // 2)).astype(str)
        ),
    ),
    "a rare site": (
        "anatom_site_general_challenge",
        lambda melanoma: np.where(melanoma, "nail", "torso"),
    ),
    "no site": (
        "anatom_site_general_challenge",
        lambda melanoma: np.where(melanoma, None, "torso"),
    ),
    "an age": ("age_approx", lambda melanoma: np.where(melanoma, 80.0, 40.0)),
    "no age": ("age_approx", lambda melanoma: np.where(melanoma, np.nan, 40.0)),
}


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize(
    "melanomas, benign", [(4, 16), (6, 500), (14, 45), (20, 20), (60, 4), (100, 300)]
)
def test_a_column_that_is_the_class_is_seen_in_small_tables_too(shortcut, melanomas, benign):
    table = in_half(melanomas, benign)
    column, values = SHORTCUTS[shortcut]
    table[column] = values(table["target"] == 1)
    scores = table_baselines(table)
    assert roc_auc_score(scores["target"], scores["metadata only"]) > 0.95
    if column == "source":
        assert roc_auc_score(scores["target"], scores["source only"]) > 0.95


def test_a_few_melanomas_of_their_own_clinic_are_seen_among_many():
    table = in_half(300, 900)
    rare = (table["target"] == 1) & (table.index % 1200 % 50 == 0)
    assert rare.sum() == 12
    table.loc[rare, "source"] = "NEW"
    scores = table_baselines(table)
    of_new = scores["source"] == "NEW"
    for name in NAMES[:2]:
        assert scores.loc[of_new, name].min() > scores.loc[~of_new, name].median() + 0.1


def test_the_more_melanomas_a_clinic_sent_and_no_benign_the_higher_it_stands():
    table = in_half(30, 90)
    for number, rows in enumerate((1, 3, 9)):
        for first in (9 * number, 120 + 9 * number):
            table.loc[first : first + rows - 1, "source"] = f"NEW_{rows}"
    scores = table_baselines(table).drop_duplicates("source").set_index("source")["source only"]
    assert scores["OLD"] < scores["NEW_1"] <= scores["NEW_3"] <= scores["NEW_9"]


@pytest.mark.parametrize("melanomas, benign", [(6, 500), (14, 45), (200, 300)])
def test_what_says_nothing_is_worth_nothing(melanomas, benign):
    aucs = []
    for seed in range(8):
        table = in_half(melanomas, benign)
        rng = np.random.default_rng(seed)
        table["source"] = rng.choice(["A", "B", "C", "D"], len(table), p=[0.9, 0.05, 0.03, 0.02])
        table["age_approx"] = rng.integers(4, 18, len(table)) * 5.0
        scores = table_baselines(table)
        aucs.append([roc_auc_score(scores["target"], scores[name]) for name in NAMES[:2]])
    assert np.mean(aucs, axis=0) == pytest.approx(0.5, abs=0.1)


def test_more_sources_than_the_trees_can_tell_apart():
    table = in_half(300, 900)
    table["source"] = [f"S{row % 400}" for row in range(1200)] * 2
    scores = table_baselines(table)
    rates = table[table["split"] == "train"].groupby("source")["target"].mean()
    assert rates.nunique() > 1
    assert scores["source only"].corr(scores["source"].map(rates), method="spearman") > 0.9


@pytest.mark.parametrize(
    "change, message",
    [
        ({"target": 0}, "of 1 class"),
        ({"split": "train"}, "0 test rows"),
        ({"split": "test"}, "0 training rows"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        table_baselines(made_up(100).assign(**change))


def test_the_full_table_by_the_tutorials_sampling_and_by_ours(real_data):
    table = read_marking(real_data / "marking-full.csv.gz")
    table["group"] = group_rows(table)
    balanced = pd.concat(
        [table[table["target"] == 0].sample(6000, random_state=42), table[table["target"] == 1]]
    )
    train, val = train_test_split(balanced, test_size=0.2, random_state=1234)
    theirs = pd.concat([train.assign(split="train"), val.assign(split="test")])
    scores = table_baselines(theirs)
    auc = {name: roc_auc_score(scores["target"], scores[name]) for name in NAMES[:2]}
    rates = train.groupby("group")["target"].mean()
    memory = val["group"].map(rates).fillna(train["target"].mean())
    auc["memory of the group"] = roc_auc_score(val["target"], memory)
    print("\ntutorial's sampling:", {name: round(value, 4) for name, value in auc.items()})
    assert auc["source only"] == pytest.approx(0.747, abs=0.001)
    assert auc["metadata only"] == pytest.approx(0.82, abs=0.01)
    assert auc["memory of the group"] == pytest.approx(0.917, abs=0.001)
    table["split"] = split_groups(table, 42)
    kept = table[balance(table, 6000, 42) == 1]
    ours = table_baselines(kept)
    auc = {name: roc_auc_score(ours["target"], ours[name]) for name in NAMES[:2]}
    print("our split:", {name: round(value, 4) for name, value in auc.items()}, len(ours))
    assert auc["source only"] == pytest.approx(0.742, abs=0.005)
    assert auc["metadata only"] == pytest.approx(0.80, abs=0.01)


# with photographs


def test_rows_and_columns_of_the_test_split(drawn):
    dataset, split = drawn
    scores = baselines(dataset, split)
    assert list(scores) == COLUMNS + NAMES
    test = split[split["split"] == "test"].reset_index(drop=True)
    pd.testing.assert_frame_equal(scores[COLUMNS], test[COLUMNS])
    assert scores[NAMES].stack().between(0, 1).all()
    pd.testing.assert_frame_equal(scores, baselines(dataset, split))
    for name in NAMES[:4]:  # the sample's trap: sources differ
        assert roc_auc_score(scores["target"], scores[name]) > 0.6


def test_metadata_come_from_the_table_of_the_data_set(drawn):
    dataset, split = drawn
    marking = pd.read_csv(dataset["csv"]).set_index("image_id").loc[split["image_id"]].reset_index()
    by_hand = marking.assign(split=split["split"], group=split["group"])[split["kept"] == 1]
    scores = baselines(dataset, split)
    assert scores["metadata only"].tolist() == table_baselines(by_hand)["metadata only"].tolist()
    assert scores["metadata only"].nunique() > 20


def test_rows_that_are_not_kept_or_in_val_are_neither_fitted_nor_read(drawn, monkeypatch):
    dataset, split = drawn
    read = []

    def noted(path, *how):
        read.append(path.name)
        return whole_and_rim(path, *how)

    monkeypatch.setattr(module, "whole_and_rim", noted)
    first = baselines(dataset, split)
    used = split[(split["kept"] == 1) & (split["split"] != "val")]
    assert sorted(read) == sorted(used["path"])
    assert len(used) < len(split) - 120
    out = (split["kept"] == 0) | (split["split"] == "val")
    changed = split.assign(target=split["target"].mask(out, 1 - split["target"]))
    pd.testing.assert_frame_equal(first, baselines(dataset, changed))


def photographs_of_one_colour(folder, change: str) -> tuple[dict, pd.DataFrame]:
    """200 photographs alike in colour and size but for what the class changes: (dataset, split)."""
    rng = np.random.default_rng(0)
    split = pd.DataFrame({"image_id": [f"X_{number}" for number in range(200)]})
    split = split.assign(source="S", target=np.arange(200) % 2, group=range(200), kept=1)
    split["path"] = split["image_id"] + ".jpg"
    split["split"] = np.where(np.arange(200) < 140, "train", "test")
    marking = split[["image_id", "source", "target"]].assign(patient_id="")
    marking.to_csv(folder / "marking.csv", index=False)
    for name, target in zip(split["path"], split["target"], strict=True):
        pixels = np.full((64, 64, 3), rng.integers(80, 120, 3), np.uint8)
        size = 3000 + int(rng.integers(100))
        if change == "colour":
            pixels[..., 0] += np.uint8(80 * target)
        elif change == "middle":
            pixels[24:40, 24:40, 0] += np.uint8(80 * target)
        else:
            size += 500 * target
        Image.fromarray(pixels).save(folder / name, quality=90)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content.ljust(size, b"\0"))
    dataset = {
        "csv": str(folder / "marking.csv"),
        "folder": str(folder),
        "colour_order_by_source": {"S": {"order": "rgb"}},
    }
    return dataset, split


@pytest.mark.parametrize(
    "change, sees, blind",
    [
        ("colour", "mean colours only", "file size only"),
        ("colour", "rim colours only", "file size only"),
        ("middle", "mean colours only", "rim colours only"),
        ("size", "file size only", "mean colours only"),
        ("size", "file size only", "rim colours only"),
    ],
)
def test_each_baseline_sees_what_its_name_says_and_nothing_else(change, sees, blind, tmp_path):
    scores = baselines(*photographs_of_one_colour(tmp_path, change))
    auc = {name: roc_auc_score(scores["target"], scores[name]) for name in NAMES}
    assert auc["source only"] == auc["metadata only"] == 0.5
    assert auc[sees] == 1
    assert 0.3 < auc[blind] < 0.7, auc


@pytest.mark.parametrize("swapped", [False, True])
def test_colours_are_means_and_deviations_red_first(swapped, tmp_path):
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (8, 12, 3)).astype(np.uint8)
    pixels = blocks.repeat(8, axis=0).repeat(8, axis=1)  # [64, 96, 3], red first
    stored = pixels[..., ::-1] if swapped else pixels
    Image.fromarray(stored).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    expected = np.r_[blocks.reshape(-1, 3).mean(axis=0), blocks.reshape(-1, 3).std(axis=0)]
    assert colours(tmp_path / "a.jpg", swapped) == pytest.approx(expected, abs=1.5)


def test_the_rim_is_an_eighth_of_the_shorter_side_without_the_lesion():
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[2:14, 2:22] = 200  # all but the rim
    assert rim(pixels).shape == (16 * 24 - 12 * 20, 3) and rim(pixels).max() == 0
    pixels[:, 20:] = 99  # a lesion that reaches the right border
    lesion = np.zeros((128, 128), np.uint8)
    lesion[:, 107:] = 255
    assert rim(pixels).max() == 99
    skin = rim(pixels, lesion)
    assert skin.max() == 0 and len(skin) == 2 * 16 + 2 * 2 * 18
    everywhere = np.full((128, 128), 255, np.uint8)
    assert np.array_equal(rim(pixels, everywhere), rim(pixels))
    assert rim(np.ones((3, 5, 3), np.uint8)).shape == (12, 3)


def test_the_rim_of_the_sample_is_measured_without_the_lesions(drawn, monkeypatch):
    """Masks that are not read leave the lesion in: then some rims of the sample are darker."""
    dataset, split = drawn
    rows = split[split["split"] == "test"]
    whole, rims = module.all_colours(rows, dataset)
    _, with_lesions = module.all_colours(rows.drop(columns="mask"), dataset)
    assert whole.shape == rims.shape == (len(rows), 6)
    differ = ~np.isclose(rims, with_lesions).all(axis=1)
    assert 0 < differ.sum() < len(rows)
    assert rims[differ, :3].mean() > with_lesions[differ, :3].mean()
    first = colours(
        Path(dataset["folder"]) / rows["path"].iloc[0],
        dataset["colour_order_by_source"][rows["source"].iloc[0]]["order"] == "bgr",
    )
    assert whole[0] == pytest.approx(first)


def test_a_photograph_cut_short_is_refused_not_averaged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    path = tmp_path / "cut.jpg"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cut\.jpg"):
        colours(path, False)


def test_a_damaged_or_missing_photograph_is_named(drawn, tmp_path):
    dataset, split = drawn
    for path in split["path"]:
        (tmp_path / path).write_bytes(b"not a picture")
    dataset = {**dataset, "folder": str(tmp_path)}
    with pytest.raises(ValueError, match=r"\.jpg"):
        baselines(dataset, split)
    name = split.loc[split["split"] == "test", "path"].iloc[0]
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        baselines(dataset, split)
