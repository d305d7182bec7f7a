"""Data sets as people lay them out: what is found all the same, and what is told."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from helpers.photographs import layout, sources
from helpers.photographs.cache import build_cache
from helpers.photographs.split import make_split

INSIDE = "512x512-dataset-melanoma/512x512-dataset-melanoma"


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    """A copy of the folder, to lay out otherwise."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def photographs_of(folder: Path) -> list[Path]:
    return sorted((folder / INSIDE).glob("SAMPLE*.jpg"))


def in_classes(folder: Path) -> None:
    """A folder for each class, as other tools want it."""
    table = pd.read_csv(folder / "marking.csv", dtype=str).set_index("image_id")
    for path in photographs_of(folder):
        place = folder / "classes" / table.loc[path.stem, "target"]
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)


def in_parts(folder: Path) -> None:
    """Two parts, as HAM10000 comes, one of them beside the table."""
    for path in photographs_of(folder)[::2]:
        path.rename(folder / path.name)


def each_in_its_own(folder: Path) -> None:
    for path in photographs_of(folder):
        (folder / INSIDE / path.stem).mkdir()
        path.rename(folder / INSIDE / path.stem / path.name)


@pytest.mark.parametrize("lay_out", [in_classes, in_parts, each_in_its_own])
def test_photographs_in_several_folders_are_one_set(lay_out, copy, tiny, folders, capsys):
    plain = sources.find_dataset(str(tiny))
    expected = make_split(plain, split_seed=1)
    lay_out(copy)
    found = sources.find_dataset(str(copy))
    assert "folders" in capsys.readouterr().out
    assert (found["rows"], found["masks"]) == (40, 40)
    split = make_split(found, split_seed=1)
    assert all((Path(found["folder"]) / path).is_file() for path in split["path"])
    assert split.drop(columns="path").equals(expected.drop(columns="path"))
    cache = build_cache(found, split, image_size=32)
    assert cache["key"] == build_cache(plain, expected, image_size=32)["key"]


def test_one_photograph_in_two_folders_is_told(copy, folders):
    in_parts(copy)
    path = photographs_of(copy)[0]
    shutil.copy(path, copy / path.name)
    with pytest.raises(ValueError) as raised:
        sources.find_dataset(str(copy))
    for fact in (path.stem, str(path), str(copy / path.name)):
        assert fact in str(raised.value)


def test_links_to_the_same_photographs_are_no_second_ones(copy, folders):
    (copy / "chosen").mkdir()
    for path in photographs_of(copy)[:9]:
        (copy / "chosen" / path.name).symlink_to(path)
    assert sources.find_dataset(str(copy))["rows"] == 40


def a_linked_folder(copy: Path, elsewhere: Path) -> None:
    shutil.move(copy / "512x512-dataset-melanoma", elsewhere / "photographs")
    (copy / "512x512-dataset-melanoma").symlink_to(elsewhere / "photographs")


def linked_files(copy: Path, elsewhere: Path) -> None:
    for path in photographs_of(copy):
        shutil.move(path, elsewhere / path.name)
        path.symlink_to(elsewhere / path.name)


def a_linked_set(copy: Path, elsewhere: Path) -> None:
    shutil.move(copy, elsewhere / "set")
    copy.symlink_to(elsewhere / "set")


def a_linked_part_with_the_table(copy: Path, elsewhere: Path) -> None:
    shutil.move(copy, elsewhere / "set")
    copy.mkdir()
    (copy / "set").symlink_to(elsewhere / "set")


def a_circle_of_links(copy: Path, elsewhere: Path) -> None:
    (copy / INSIDE / "up").symlink_to(copy)
    (copy / "a").symlink_to(copy / "b")
    (copy / "b").symlink_to(copy / "a")
    (copy / "nothing").symlink_to(elsewhere / "gone")


def hard_links(copy: Path, elsewhere: Path) -> None:
    for path in photographs_of(copy):
        os.link(path, elsewhere / path.name)


@pytest.mark.parametrize(
    "link",
    [
        a_linked_folder,
        linked_files,
        a_linked_set,
        a_linked_part_with_the_table,
        a_circle_of_links,
        hard_links,
    ],
)
def test_links_are_followed_and_end(link, copy, folders, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link(copy, elsewhere)
    assert sources.find_dataset(str(copy))["rows"] == 40


def test_a_folder_is_walked_once_under_its_own_name(copy):
    (copy / "0 link").symlink_to(copy / INSIDE)
    places = [place for place, _ in layout.walk(copy)]
    assert copy / INSIDE in places and copy / "0 link" not in places


@pytest.mark.parametrize("name", ["Marking.csv", "MARKING.CSV", "marking.CSV"])
def test_capitals_in_the_table_s_name_do_not_count(name, copy, folders):
    (copy / "marking.csv").rename(copy / name)
    assert sources.find_dataset(str(copy))["csv"] == str(copy / name)


def test_a_table_beside_the_photographs_folder_in_one_of_its_own_is_found(copy, folders):
    (copy / "tables").mkdir()
    (copy / "marking.csv").rename(copy / "tables" / "marking.csv")
    found = sources.find_dataset(str(copy))
    assert found["rows"] == 40 and found["folder"] == str(copy / INSIDE)


@pytest.mark.parametrize(
    "name", ["marking.csv.csv", "marking.csv.txt", "train.csv", "labels.xlsx", "deep/Labels.TSV"]
)
def test_a_table_of_another_name_is_named_with_what_to_do(name, copy, folders):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / "marking.csv").rename(copy / name)
    with pytest.raises(ValueError) as raised:
        sources.find_dataset(str(copy))
    for fact in (name, "marking.csv", "image_id", "patient_id"):
        assert fact in str(raised.value)


@pytest.mark.parametrize("place", ["512x512-dataset-melanoma", INSIDE])
def test_a_table_above_the_folder_is_named(place, copy, folders):
    with pytest.raises(ValueError, match=f"name the folder {copy}$"):
        sources.find_dataset(str(copy / place))


def test_a_zip_in_a_folder_is_named(copy, folders, tiny_zip):
    (copy / "marking.csv").unlink()
    shutil.copy(tiny_zip, copy / "inner.zip")
    with pytest.raises(ValueError, match=r"inner\.zip.*unpack"):
        sources.find_dataset(str(copy))


def test_photographs_of_other_ids_are_told_with_one_of_each(copy, folders):
    for path in photographs_of(copy):
        path.rename(path.with_name(f"derm_{path.name[-6:]}"))
    with pytest.raises(ValueError, match=r"SAMPLE_\d+\.jpg.*derm_\d\d\.jpg"):
        sources.find_dataset(str(copy))


def test_photographs_of_mixed_endings_are_one_set(copy, folders):
    for number, path in enumerate(photographs_of(copy)):
        path.rename(path.with_suffix((".jpg", ".JPG", ".jpeg", ".Jpeg")[number % 4]))
    assert sources.find_dataset(str(copy))["rows"] == 40
