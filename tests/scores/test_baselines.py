"""Baselines that see no lesion, against rates counted by hand, Pillow's means, and figures of the real table."""

import time

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
from helpers.scores import baselines as module
from helpers.scores.baselines import baselines, colours, table_baselines

COLUMNS = ["image_id", "source", "group", "target"]
NAMES = ["source only", "metadata only", "mean colours only", "file size only"]


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
    found = table_baselines(table)
    rates = table[table["split"] == "train"].groupby("source")["target"].mean()
    assert found["source only"].to_numpy() == pytest.approx(
        found["source"].map(rates).to_numpy(), abs=0.01
    )
    for _, rows in found.groupby("source"):
        assert rows["source only"].nunique() == 1


def test_metadata_takes_missing_values_and_beats_the_source_where_age_says_something():
    table = made_up(4000)
    found = table_baselines(table)
    assert (
        list(found) == COLUMNS + NAMES[:2]
        and found["image_id"].tolist() == table.loc[table["split"] == "test", "image_id"].tolist()
    )
    assert found.notna().all(axis=None)
    source, metadata = (roc_auc_score(found["target"], found[name]) for name in NAMES[:2])
    assert metadata > source + 0.03


def test_only_train_is_fitted_and_test_targets_are_not_seen():
    table = made_up(1000)
    first = table_baselines(table)
    changed = table.assign(
        target=table["target"].where(table["split"] == "train", 1 - table["target"])
    )
    again = table_baselines(changed)
    pd.testing.assert_frame_equal(first[NAMES[:2]], again[NAMES[:2]])
    other = table_baselines(
        table.assign(
            target=table["target"]
            .where(table["split"] != "train", 0)
            .mask((table["split"] == "train") & (table["source"] == "A"), 1)
        )
    )
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
    table = (
        table.drop(columns=absent)
        if how == "no column"
        else table.assign(**dict.fromkeys(absent, np.nan))
    )
    found = table_baselines(table)
    assert found[NAMES[:2]].notna().all(axis=None)
    if len(absent) == 3:
        assert found["metadata only"].tolist() == found["source only"].tolist()


def test_a_source_that_train_lacks_has_a_score_too():
    table = made_up(500)
    table.loc[table["split"] == "test", "source"] = "D"
    assert table_baselines(table)["source only"].between(0, 1).all()


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
    found = table_baselines(theirs)
    auc = {name: roc_auc_score(found["target"], found[name]) for name in NAMES[:2]}
    memory = (
        val["group"].map(train.groupby("group")["target"].mean()).fillna(train["target"].mean())
    )
    auc["memory of the group"] = roc_auc_score(val["target"], memory)
    print("\ntutorial's sampling:", {name: round(one, 4) for name, one in auc.items()})
    assert auc["source only"] == pytest.approx(0.747, abs=0.001)
    assert auc["metadata only"] == pytest.approx(0.82, abs=0.01)
    assert auc["memory of the group"] == pytest.approx(0.917, abs=0.001)
    table["split"] = split_groups(table, 42)
    kept = table[balance(table, 6000, 42) == 1]
    ours = table_baselines(kept)
    auc = {name: roc_auc_score(ours["target"], ours[name]) for name in NAMES[:2]}
    print(
        "our split:",
        {name: round(one, 4) for name, one in auc.items()},
        len(ours),
        ours["target"].sum(),
    )
    assert auc["source only"] == pytest.approx(0.742, abs=0.005)
    assert auc["metadata only"] == pytest.approx(0.80, abs=0.01)


# with photographs


def test_rows_and_columns_of_the_test_split_in_under_three_seconds(drawn):
    dataset, split = drawn
    start = time.perf_counter()
    found = baselines(dataset, split)
    seconds = time.perf_counter() - start
    print(f"\n{len(split)} photographs: {seconds:.2f} s")
    assert seconds < 3
    assert list(found) == COLUMNS + NAMES
    test = split[split["split"] == "test"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[COLUMNS], test[COLUMNS])
    assert found[NAMES].notna().all(axis=None) and found[NAMES].stack().between(0, 1).all()
    pd.testing.assert_frame_equal(found, baselines(dataset, split))
    for name in NAMES[:3]:
        assert (
            roc_auc_score(found["target"], found[name]) > 0.6
        )  # the sample's trap: sources differ


def test_metadata_come_from_the_table_of_the_data_set(drawn):
    dataset, split = drawn
    marking = pd.read_csv(dataset["csv"]).set_index("image_id").loc[split["image_id"]].reset_index()
    by_hand = marking.assign(split=split["split"], group=split["group"])[split["kept"] == 1]
    found = baselines(dataset, split)
    assert found["metadata only"].tolist() == table_baselines(by_hand)["metadata only"].tolist()
    assert found["metadata only"].nunique() > 20


def test_rows_that_are_not_kept_or_in_val_are_neither_fitted_nor_read(drawn, monkeypatch):
    dataset, split = drawn
    real, read = colours, []
    monkeypatch.setattr(
        module, "colours", lambda path, swapped: read.append(path.name) or real(path, swapped)
    )
    first = baselines(dataset, split)
    used = split[(split["kept"] == 1) & (split["split"] != "val")]
    assert sorted(read) == sorted(used["path"]) and len(used) < len(split) - 120
    out = (split["kept"] == 0) | (split["split"] == "val")
    changed = split.assign(target=split["target"].mask(out, 1 - split["target"]))
    pd.testing.assert_frame_equal(first, baselines(dataset, changed))


def test_each_baseline_sees_what_its_name_says(tmp_path):
    """Photographs of one colour and size but for what the class changes: only that baseline tells them apart."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "image_id": [f"X_{number}" for number in range(200)],
            "source": "S",
            "patient_id": np.nan,
            "target": np.arange(200) % 2,
        }
    )
    split = rows.drop(columns="patient_id").assign(
        path=rows["image_id"] + ".jpg",
        group=range(200),
        kept=1,
        split=np.where(np.arange(200) < 140, "train", "test"),
    )
    rows.to_csv(tmp_path / "marking.csv", index=False)
    dataset = {
        "csv": str(tmp_path / "marking.csv"),
        "folder": str(tmp_path),
        "colour_order_by_source": {"S": {"order": "rgb"}},
    }
    expected = {"mean colours only": (1, 0.4), "file size only": (0.4, 1)}
    for change, (colour, size) in expected.items():
        for row in rows.itertuples():
            pixels = np.full((64, 64, 3), rng.integers(80, 120, 3), np.uint8)
            if change == "mean colours only":
                pixels[..., 0] += np.uint8(80 * row.target)
            path = tmp_path / f"{row.image_id}.jpg"
            Image.fromarray(pixels).save(path, quality=90)
            padding = (
                3000 - path.stat().st_size + (500 * row.target if change == "file size only" else 0)
            )
            path.write_bytes(path.read_bytes() + bytes(padding + int(rng.integers(100))))
        found = baselines(dataset, split)
        auc = {name: roc_auc_score(found["target"], found[name]) for name in NAMES}
        assert auc["source only"] == auc["metadata only"] == 0.5
        for name, value in zip(NAMES[2:], (colour, size), strict=True):
            assert auc[name] == 1 if value == 1 else 0.3 < auc[name] < 0.7, (change, name, auc)


@pytest.mark.parametrize("swapped", [False, True])
def test_colours_are_means_and_deviations_red_first(swapped, tmp_path):
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (8, 12, 3)).astype(np.uint8)
    pixels = blocks.repeat(8, axis=0).repeat(8, axis=1)  # [64, 96, 3], red first
    stored = pixels[..., ::-1] if swapped else pixels
    Image.fromarray(stored).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    found = colours(tmp_path / "a.jpg", swapped)
    expected = np.r_[blocks.reshape(-1, 3).mean(axis=0), blocks.reshape(-1, 3).std(axis=0)]
    assert found == pytest.approx(expected, abs=1.5)


def test_a_damaged_or_missing_photograph_is_named(drawn, tmp_path):
    dataset, split = drawn
    name = split.loc[split["split"] == "test", "path"].iloc[0]
    for path in split["path"]:
        (tmp_path / path).write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="cannot be decoded"):
        baselines({**dataset, "folder": str(tmp_path)}, split)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        baselines({**dataset, "folder": str(tmp_path)}, split)
