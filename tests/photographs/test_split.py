"""Table, groups, split and balance, against plain loops and counts of the real table."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from helpers import workspace
from helpers.photographs.split import (
    SPLIT_COLUMNS,
    balance,
    group_rows,
    main,
    make_split,
    photograph_names,
    read_split,
    read_table,
    split_groups,
    take_groups,
)
from helpers.photographs.table import read_marking
from tests.conftest import PATIENCE

# groups


def random_table(seed: int, count: int) -> pd.DataFrame:
    """Some patients, some without, some twins under a second id."""
    rng = np.random.default_rng(seed)
    ids = [f"ISIC_{number}" for number in rng.permutation(count)]
    ids = [
        f"{ids[rng.integers(row)]}_downsampled" if row and rng.random() < 0.2 else ids[row]
        for row in range(count)
    ]
    table = pd.DataFrame({"image_id": list(dict.fromkeys(ids))})
    patients = [f"IP_{number}" for number in rng.integers(count, size=len(table))]
    table["patient_id"] = pd.Series(patients).where(rng.random(len(table)) < 0.7)
    table["target"] = (rng.random(len(table)) < 0.3).astype(int)
    table["source"] = rng.choice(["A", "B", "C"], size=len(table))
    return table


def plain_groups(table: pd.DataFrame, pairs: list[tuple[str, str]]) -> list[set[int]]:
    """Sets of rows, by merging sets of names in a loop until nothing changes."""

    def photo(image: str) -> str:
        return "photo " + image.split("_downsampled")[0]

    names = [
        {photo(image), f"patient {patient}"} if isinstance(patient, str) else {photo(image)}
        for image, patient in zip(table["image_id"], table["patient_id"], strict=True)
    ]
    links = names + [{photo(one), photo(two)} for one, two in pairs]
    merged = []
    for link in links:
        touching = [one for one in merged if one & link]
        merged = [one for one in merged if not one & link] + [link.union(*touching)]
    rows = [{row for row, own in enumerate(names) if own & one} for one in merged]
    return [one for one in rows if one]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("with_pairs", [False, True])
def test_groups_equal_those_of_a_plain_loop(seed, with_pairs):
    table = random_table(seed, 60)
    rng = np.random.default_rng(1000 + seed)
    pool = [*table["image_id"], "ISIC_absent", "ISIC_gone", "ISIC_3_downsampled"]
    pairs = [tuple(rng.choice(pool, 2, replace=False)) for _ in range(12)] if with_pairs else []
    groups = group_rows(table, pd.DataFrame(pairs, columns=["one", "two"]) if with_pairs else None)
    found = [set(np.flatnonzero(groups == group)) for group in np.unique(groups)]
    assert sorted(found, key=min) == sorted(plain_groups(table, pairs), key=min)
    assert [min(one) for one in found] == sorted(
        min(one) for one in found
    )  # numbered in the order of the rows


def test_pairs_hold_under_either_id_of_a_twin(photographs, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("one,two\nX_0_downsampled,X_38_downsampled\nX_4,gone\n")
    group = make_split(photographs, pairs=str(tmp_path / "pairs.csv")).set_index("image_id")[
        "group"
    ]
    assert group["X_0"] == group["X_38"]
    assert "2 pairs were given; the table has both ids of 1" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["unusable", "ids"])
def test_a_link_through_a_row_that_is_left_out_holds(how, photographs, tmp_path):
    """Formerly groups were of the rows that were left: the twin's patient was forgotten."""
    table = Path(photographs["csv"])
    ids = pd.read_csv(table)["image_id"]
    with table.open("a") as file:
        file.write("P_19,X_0_downsampled,0,S\n")
    if how == "unusable":
        photographs["unusable"] = {"X_0_downsampled": "it is damaged"}
    else:
        ids.to_csv(tmp_path / "ids.csv", index=False)
        photographs["ids"] = str(tmp_path / "ids.csv")
    groups = read_table(photographs).set_index("image_id")["group"]
    assert groups.index.tolist() == ids.tolist()
    # two photographs a patient, in their order; the last patient is the first one's
    assert groups.tolist() == [*(n // 2 for n in range(38)), 0, 0]


def test_pairs_are_compared_as_the_table_is(photographs, tmp_path):
    (tmp_path / "pairs.csv").write_text("one , two\nX_0 ,X_38\n\u00a0X_4, X_30\u00a0\n")
    group = make_split(photographs, pairs=str(tmp_path / "pairs.csv")).set_index("image_id")[
        "group"
    ]
    assert group["X_0"] == group["X_38"] and group["X_4"] == group["X_30"] != group["X_0"]


def test_a_pair_list_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected two"):
        group_rows(random_table(0, 10), pd.DataFrame({"number": ["0"], "one": ["a"], "two": ["b"]}))


# the split of small tables


def grouped(seed: int, count: int) -> pd.DataFrame:
    table = random_table(seed, count)
    return table.assign(group=group_rows(table))


def crossing(table: pd.DataFrame) -> int:
    """How many groups are on more than one side, counted in a loop."""
    sides = {}
    for group, side in zip(table["group"], table["split"], strict=True):
        sides.setdefault(group, set()).add(side)
    return sum(len(one) > 1 for one in sides.values())


@pytest.mark.parametrize("count", [40, 60, 300])
@pytest.mark.parametrize("seed", range(10))
def test_no_group_crosses_and_both_classes_are_on_every_side(seed, count):
    table = grouped(seed, count)
    table["split"] = split_groups(table, seed)
    assert crossing(table) == 0
    assert table.groupby("split")["target"].nunique().to_dict() == {"train": 2, "val": 2, "test": 2}
    if count == 300:
        shares = table["split"].value_counts(normalize=True).to_dict()
        assert shares == pytest.approx({"train": 0.6, "val": 0.2, "test": 0.2}, abs=0.03)


def test_a_table_that_its_sources_would_split_badly_is_split_by_target():
    rng = np.random.default_rng(0)
    for _ in range(
        120
    ):  # five of these leave a side of the split by source and target without a melanoma
        table = pd.DataFrame(
            {
                "group": rng.integers(13, size=26),
                "target": (rng.random(26) < 0.25).astype(int),
                "source": rng.choice(list("abc"), 26),
            }
        )
        if table.groupby("target")["group"].nunique().reindex([0, 1], fill_value=0).min() < 5:
            continue
        table["split"] = split_groups(table, 0)
        assert crossing(table) == 0
        assert table.groupby("split")["target"].nunique().to_dict() == {
            "train": 2,
            "val": 2,
            "test": 2,
        }


def test_a_split_depends_on_its_seed_alone():
    table = grouped(0, 300)
    first, again, other = (split_groups(table, seed) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize(
    "targets, groups, facts",
    [
        ([], [], ["no photographs"]),
        ([1], [0], ["target is 1", "1 rows"]),
        ([0] * 20, range(20), ["target is 0", "20 rows", "both classes"]),
        ([0] * 16 + [1] * 4, range(20), ["class 1 has 4 groups", "needs 5"]),
        ([1] * 16 + [0] * 4, range(20), ["class 0 has 4 groups", "needs 5"]),
        ([0, 1] * 10, [0] * 20, ["class 0 has 1 groups", "needs 5"]),
    ],
)
def test_a_split_that_cannot_be_is_refused(targets, groups, facts):
    table = pd.DataFrame({"target": targets, "source": "A", "group": groups})
    with pytest.raises(ValueError) as raised:
        split_groups(table, 0)
    for fact in [*facts, "take more photographs"]:
        assert fact in str(raised.value)


@pytest.mark.parametrize("count", [1, 2, -3])
def test_a_subsample_smaller_than_any_group_is_refused(count):
    table = pd.DataFrame({"target": [0, 1] * 15, "source": "A", "group": np.arange(30) // 3})
    with pytest.raises(ValueError) as raised:
        take_groups(table, count, 0)
    for fact in (f"subsample is {count} rows", "10 groups", "has 3"):
        assert fact in str(raised.value)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_subsample_too_small_to_split_is_refused_with_a_sentence(count, photographs):
    with pytest.raises(ValueError, match="subsample"):
        make_split(photographs, subsample=count)


@pytest.mark.parametrize("count", [30, 60, 150])
@pytest.mark.parametrize("seed", range(5))
def test_take_groups_takes_whole_groups_of_both_classes(seed, count):
    table = grouped(seed, 300)
    taken = take_groups(table, count, seed)
    assert 0.8 * count <= len(taken) <= count
    sizes = table["group"].value_counts()
    assert (
        taken["group"].value_counts().to_dict() == sizes[taken["group"].unique()].to_dict()
    )  # whole
    assert taken["image_id"].tolist() == [
        one for one in table["image_id"] if one in set(taken["image_id"])
    ]  # in order
    assert taken.groupby("target")["group"].nunique().min() >= 5
    assert taken.index.tolist() == list(range(len(taken)))


@pytest.mark.parametrize("rare", [0, 1])
def test_take_groups_keeps_five_groups_of_a_rare_class(rare):
    table = pd.DataFrame({"target": [rare] * 6 + [1 - rare] * 594, "group": range(600)})
    for seed in range(5):
        taken = take_groups(table, 30, seed)
        assert len(taken) == 30 and (taken["target"] == rare).sum() >= 5


def test_take_groups_takes_all_for_zero_and_differs_by_seed():
    table = grouped(0, 100)
    assert take_groups(table, 0, 0) is table
    assert take_groups(table, len(table), 0) is table
    one, two = (set(take_groups(table, 40, seed)["image_id"]) for seed in (0, 1))
    assert one != two


def test_balance_drops_benign_training_rows_alone():
    table = grouped(0, 300)
    table["split"] = split_groups(table, 0)
    kept = balance(table, 30, 0)
    benign = ((table["split"] == "train") & (table["target"] == 0)).to_numpy()
    assert kept[benign].sum() == 30 and (kept[~benign] == 1).all() and set(kept) == {0, 1}
    assert (balance(table, 0, 0) == 1).all() and (balance(table, 10_000, 0) == 1).all()
    assert (balance(table, 30, 0) == kept).all() and (balance(table, 30, 1) != kept).any()


# the full table


@functools.cache
def full_table(folder):
    table = read_marking(folder / "marking-full.csv.gz")
    return table.assign(group=group_rows(table))


def test_the_tutorials_split_of_the_full_table_leaks_as_published(real_data):
    table = full_table(real_data)
    assert table.groupby(["source", "target"]).size().to_dict() == {
        ("ISIC19", 0): 20809,
        ("ISIC19", 1): 4522,
        ("ISIC20", 0): 32542,
        ("ISIC20", 1): 584,
        ("SLATMD", 0): 1657,
        ("SLATMD", 1): 373,
    }
    balanced = pd.concat(
        [table[table["target"] == 0].sample(6000, random_state=42), table[table["target"] == 1]]
    )
    train, val = train_test_split(balanced, test_size=0.2, random_state=1234)
    leaked = val["group"].isin(train["group"])
    assert (
        len(val),
        leaked.sum(),
        (val["target"] == 1).sum(),
        (leaked & (val["target"] == 1)).sum(),
    ) == (2296, 1551, 1082, 906)


def test_the_split_of_the_full_table(real_data):
    path = real_data / "marking-full.csv.gz"
    dataset = {"csv": str(path), "ids": "", "masks_folder": ""}
    split = make_split(dataset, benign=6000, split_seed=42)
    assert len(split) == 60487 and crossing(split) == 0
    table = full_table(real_data).assign(split=split["split"])
    assert (table["image_id"] == split["image_id"]).all()
    assert (table["group"] == split["group"]).all(), "of a whole table, numbered as they were"
    patients = table.dropna(subset="patient_id").groupby("patient_id")["split"].nunique()
    assert (patients == 1).all() and len(patients) > 2056
    side = dict(zip(table["image_id"], table["split"], strict=True))
    twins = [
        (one, one.removesuffix("_downsampled")) for one in side if one.endswith("_downsampled")
    ]
    present = [(a, b) for a, b in twins if b in side]
    assert len(present) == 2025 and all(side[a] == side[b] for a, b in present)
    shares = table["split"].value_counts(normalize=True).to_dict()
    assert shares == pytest.approx({"train": 0.6, "val": 0.2, "test": 0.2}, abs=0.01)
    rates = table.groupby(["source", "split"])["target"].mean().unstack()
    whole = table.groupby("source")["target"].mean()
    print(rates.assign(table=whole).round(4))
    for side in ("val", "test"):
        assert (rates[side] / whole).between(0.9, 1.1).all()
    kept = split[split["kept"] == 1]
    assert kept[kept["split"] == "train"]["target"].value_counts()[0] == 6000
    assert (split.loc[split["split"] != "train", "kept"] == 1).all()
    assert (split.loc[split["target"] == 1, "kept"] == 1).all()


def test_the_duplicate_list_of_isic_2020_is_read(real_data):
    pairs = pd.read_csv(real_data / "isic2020-duplicates.csv.gz", dtype=str)
    table = full_table(real_data)
    groups = dict(zip(table["image_id"], group_rows(table, pairs), strict=True))
    assert len(pairs) == 425 and all(
        groups[one] == groups[two] for one, two in pairs.itertuples(index=False)
    )


# the command: a split from a table alone


# VmHWM, since Linux's ru_maxrss of a started process begins at that of the process that started it
MEASURED = r"""
import pathlib, re, resource, runpy, sys
sys.argv[0] = "preprocess"
status = pathlib.Path("/proc/self/status")
try:
    runpy.run_module("helpers.preprocess", run_name="__main__")
finally:
    if status.exists():
        print("KiB", re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    else:
        print("KiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def split_table(*arguments, folder):
    """`python -m helpers.preprocess` as a reader types it; its output, the KiB it took at most."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(workspace.PROJECT)},
    )
    *lines, last = done.stdout.splitlines()
    return done, "\n".join(lines), int(last.split()[1])


def test_the_command_splits_the_full_table(real_data, tmp_path):
    pairs = real_data / "isic2020-duplicates.csv.gz"
    done, output, memory = split_table(
        real_data / "marking-full.csv.gz", "--pairs", pairs, "--out", "split.csv", folder=tmp_path
    )
    print(f"\n{output}\n{memory / 1024:.0f} MiB at most")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert memory < 1024**2
    assert os.listdir(tmp_path) == ["split.csv"]
    split = read_split(tmp_path / "split.csv")
    marking = pd.read_csv(real_data / "marking-full.csv.gz", dtype=str)
    assert list(split) == SPLIT_COLUMNS and split["image_id"].equals(marking["image_id"])
    assert (
        "0 groups are on two sides" in output
        and "425 pairs were given; the table has both ids of 425" in output
    )
    for side, rows in split.groupby("split"):
        printed = next(line.split() for line in output.splitlines() if line.startswith(side))
        assert [int(word) for word in printed[1:4]] == [
            rows["group"].nunique(),
            len(rows),
            rows["target"].sum(),
        ]
    assert crossing(split) == 0
    side = dict(zip(split["image_id"], split["split"], strict=True))
    twins = [
        name
        for name in side
        if name.endswith("_downsampled") and name.removesuffix("_downsampled") in side
    ]
    crossed = {
        "twins": sum(side[name] != side[name.removesuffix("_downsampled")] for name in twins),
        "pairs": sum(
            side[one] != side[two] for one, two in pd.read_csv(pairs, dtype=str).to_numpy()
        ),
    }
    print(f"{len(twins)} twins; on two sides: {crossed}")
    assert len(twins) == 2025 and crossed == {"twins": 0, "pairs": 0}
    whole = split.groupby("source")["target"].mean()
    rates = split.groupby(["split", "source"])["target"].mean()
    print(rates.unstack().assign(all=split.groupby("split")["target"].mean()).round(4))
    for side in ("val", "test"):
        assert (rates[side] / whole).between(0.9, 1.1).all()
        assert (
            0.9 < split.loc[split["split"] == side, "target"].mean() / split["target"].mean() < 1.1
        )


def test_the_command_makes_the_split_of_notebook_02(tmp_path):
    random_table(0, 300).to_csv(tmp_path / "marking.csv.gz", index=False)
    (tmp_path / "pairs.csv").write_text("one,two\nISIC_1,ISIC_2\nISIC_3,absent\n")
    done, output, *_ = split_table(
        "marking.csv.gz", "--pairs", "pairs.csv", "--out", "a/split.csv", folder=tmp_path
    )
    assert done.returncode == 0 and "2 pairs were given" in output, done.stderr
    dataset = {"csv": str(tmp_path / "marking.csv.gz"), "ids": "", "masks_folder": ""}
    ours = make_split(dataset, pairs=str(tmp_path / "pairs.csv"))
    pd.testing.assert_frame_equal(read_split(tmp_path / "a" / "split.csv"), ours, check_dtype=False)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["absent.csv", "--out", "x.csv"], "absent.csv"),
        (["two.csv", "--out", "x.csv"], "two.csv has the columns"),
        (["cut.csv.gz", "--out", "x.csv"], "end-of-stream"),
        (["text.csv.gz", "--out", "x.csv"], "gzip"),
        (["good.csv", "--pairs", "absent.csv", "--out", "x.csv"], "absent.csv"),
        (["good.csv", "--pairs", "good.csv", "--out", "x.csv"], "pairs has the columns"),
        (["one.csv", "--out", "x.csv"], "a split needs both classes"),
        (["good.csv"], "--out"),
        (["good.csv", "--out", "x.csv", "--seed", "1"], "--seed"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = random_table(0, 60)
    table.to_csv("good.csv", index=False)
    table.assign(target=0).to_csv("one.csv", index=False)
    table.to_csv("whole.csv.gz", index=False)
    (tmp_path / "cut.csv.gz").write_bytes((tmp_path / "whole.csv.gz").read_bytes()[:200])
    (tmp_path / "two.csv").write_text("one,two\na,b\n")
    (tmp_path / "text.csv.gz").write_text("one,two\na,b\n")
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not [path.name for path in tmp_path.iterdir() if path.name.lstrip(".").startswith("x.")]


# photographs and masks


def test_make_split_has_the_contracts_columns_and_paths(photographs):
    split = make_split(photographs, benign=3)
    assert list(split) == ["image_id", "path", "mask", "target", "source", "group", "split", "kept"]
    assert (split["path"] == split["image_id"] + ".jpg").all()
    assert [row for row, mask in enumerate(split["mask"]) if mask] == list(range(0, 40, 4))
    assert split["mask"][4] == "X_4_segmentation.png"
    assert (split["kept"] == 0).sum() == (
        (split["split"] == "train") & (split["target"] == 0)
    ).sum() - 3
    assert set(make_split({**photographs, "masks_folder": ""})["mask"]) == {""}


def test_files_are_named_as_they_are_on_the_disk(photographs):
    """A camera's .JPG, and a Mac's é of two characters."""
    names = {f"X_{number}": f"X_{number}.jpg" for number in range(40)}
    names["X_3"] = "X_3.JPG"
    names["X_4"] = "X_4.jpeg"
    table = Path(photographs["csv"])
    table.write_text(table.read_text().replace(",X_5,", ",X_\u00e9,"), encoding="utf-8")
    del names["X_5"]
    names["X_\u00e9"] = "X_e\u0301.jpg"
    sums = {"photographs": dict.fromkeys(names.values(), "00000000"), "masks": {}}
    split = make_split({**photographs, "checksums": sums})
    assert dict(zip(split["image_id"], split["path"], strict=True)) == names


def test_a_file_that_spells_its_id_otherwise_is_found_from_a_part_of_the_table(photographs):
    """01 found X_7 in X_007.jpg: formerly, without X_07, that one's own file made it doubtful."""
    table = Path(photographs["csv"])
    table.write_text(table.read_text().replace(",X_9,", ",X_07,"))
    names = {f"X_{number}": f"X_{number}.jpg" for number in range(40)}
    del names["X_9"]
    names |= {"X_7": "X_007.jpg", "X_07": "X_07.jpg"}
    sums = {"photographs": dict.fromkeys(names.values(), "00000000"), "masks": {}}
    dataset = {**photographs, "checksums": sums}
    for part in (["X_7"], ["X_3", "X_7"], list(names)):
        assert photograph_names(pd.Series(part), dataset) == [names[name] for name in part]


def test_ids_and_pairs_reach_the_split(photographs, tmp_path):
    (tmp_path / "ids.csv").write_text(
        "image_id\n" + "\n".join(f"X_{number}" for number in range(39, 5, -1))
    )
    (tmp_path / "pairs.csv").write_text("one,two\nX_6,X_38\nX_10,X_0\nX_0,X_20\n")
    split = make_split(
        {**photographs, "ids": str(tmp_path / "ids.csv")}, pairs=str(tmp_path / "pairs.csv")
    )
    assert split["image_id"].tolist() == [f"X_{number}" for number in range(6, 40)]
    group = dict(zip(split["image_id"], split["group"], strict=True))
    assert (
        group["X_6"] == group["X_7"] == group["X_38"]
        and group["X_10"] == group["X_20"] != group["X_6"]
    )
    assert len(make_split(photographs, subsample=24)) <= 24


def test_a_split_on_disk_is_the_split(photographs, tmp_path):
    for one in (photographs, {**photographs, "masks_folder": ""}):
        split = make_split(one, benign=3)
        split.to_csv(tmp_path / "split.csv", index=False)
        pd.testing.assert_frame_equal(read_split(tmp_path / "split.csv"), split, check_dtype=False)
