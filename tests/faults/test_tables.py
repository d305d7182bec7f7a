"""Tables as readers have them: from spreadsheets, cut off, in other encodings, with stray cells.

Each is a real marking.csv beside forty photographs, read by `find_dataset`, by the split and by the
command. It ends in the rows, as of the plain table, or in a ValueError that names the file, what
was found and what was expected.
"""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from helpers import workspace
from helpers.photographs import sources
from helpers.photographs.split import main, make_split, read_split, read_table
from helpers.photographs.table import read_marking
from tests.conftest import PATIENCE
from tests.faults import limits

LINES = ["patient_id,image_id,target,source"]
LINES += [f"P_{row // 2},X_{row},{row // 2 % 2},{'S' if row < 20 else 'T'}" for row in range(40)]
PLAIN = "\n".join(LINES) + "\n"


def changed(row: int, line: str) -> str:
    """The plain table with another line in place of X_<row>'s."""
    return "\n".join([*LINES[: row + 1], line, *LINES[row + 2 :]]) + "\n"


def columns(*names: str) -> str:
    """The plain table with these columns, of which some may be new or stand twice."""
    table = [dict(zip(LINES[0].split(","), line.split(","), strict=True)) for line in LINES]
    return "\n".join(",".join(row.get(name, name) for name in names) for row in table) + "\n"


READ = {
    "columns in another order": columns("source", "target", "image_id", "patient_id"),
    "further columns": columns(
        "sex", "patient_id", "image_id", "target", "source", "benign_malignant"
    ),
    "targets as floats": PLAIN.replace(",0,", ",0.0,").replace(",1,", ",1.,"),
    "spaces around targets": PLAIN.replace(",0,", ", 0 ,"),
    "a byte order mark": PLAIN.encode("utf-8-sig"),
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "CR alone": PLAIN.replace("\n", "\r"),
    "CR CR LF": PLAIN.replace("\n", "\r\r\n"),
    "empty lines": PLAIN.replace("\n", "\n\n"),
    "spaces before columns' names": PLAIN.replace(",", ", ", 3),
    "blanks around ids and patients": changed(4, "\u00a0P_2, X_4\u3000,0, S "),
    "a newline behind an id": changed(4, 'P_2,"X_4\n",0,S'),
    "ids as files": PLAIN.replace(",X_", ",train/X_").replace(",0,", ".JPG,0,"),
    "ids as files of other machines": changed(4, "P_2,C:\\data\\X_4.jpeg,0,S"),
    "ids as files of the folder above": changed(4, "P_2,../X_4.png,0,S"),
    "ids in other capitals": PLAIN.replace("X_", "x_"),
    "ids with other dashes": PLAIN.replace(",X_", ",X\u2011"),
    "ids of full width": PLAIN.replace("X_1", "\uff38_\uff11"),
    "cells in quotes": "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in LINES
    ),
}
REFUSED = {  # a table, and what its sentence must name
    "0 bytes": ("", ["no rows"]),
    "a header alone": (LINES[0] + "\n", ["no rows"]),
    "empty lines alone": ("\n\n\n", ["no rows"]),
    "a column missing": (columns("patient_id", "image_id", "source"), ["; target "]),
    "a column renamed": (PLAIN.replace("image_id", "image_name"), ["image_name", "; image_id "]),
    "a column in capitals": (PLAIN.replace("image_id", "Image_ID"), ["Image_ID", "; image_id "]),
    "a column twice": (
        columns("target", "patient_id", "image_id", "target", "source"),
        ["; target ", "twice"],
    ),
    "semicolons": (
        PLAIN.replace(",", ";"),
        ["patient_id;image_id;target;source;", "patient_id, image_id", "commas"],
    ),
    "tabs": (PLAIN.replace(",", "\t"), ["patient_id, image_id", "commas"]),
    "no header": (PLAIN.partition("\n")[2], ["P_0, X_0", "patient_id, image_id"]),
    "a web page": ("<!DOCTYPE html>\n<html>\n</html>\n", ["<!DOCTYPE html>", "image_id"]),
    "a comment above": ("# from a friend\n" + PLAIN, ["line 2", "4 cells", "has 1"]),
    "an id twice": (PLAIN + LINES[5] + "\n", ["1 image ids", "'X_4'"]),
    "an id twice, once with a blank": (PLAIN + "P_2,X_4\u00a0,0,S\n", ["1 image ids", "'X_4'"]),
    "ids that differ in capitals": (
        changed(4, "P_2,x_5,0,S"),
        ["1 image ids", "'X_5'", "capitals"],
    ),
    "an id missing": (changed(4, "P_2,,0,S"), ["1 image ids", "empty"]),
    "an id of blanks": (changed(4, "P_2, \u00a0,0,S"), ["1 image ids", "empty"]),
    "the header again": (PLAIN + PLAIN, ["target is 0 or 1", "1 rows", "'target'"]),
    "targets as words": (
        PLAIN.replace(",0,", ",benign,"),
        ["target is 0 or 1", "20 rows", "'benign'"],
    ),
    "a target of 2": (changed(4, "P_2,X_4,2,S"), ["target is 0 or 1", "1 rows", "'2'"]),
    "a target of 0.5": (changed(4, "P_2,X_4,0.5,S"), ["target is 0 or 1", "1 rows", "'0.5'"]),
    "no target": (changed(4, "P_2,X_4,,S"), ["target is 0 or 1", "1 rows", "''"]),
    "a target of NaN": (changed(4, "P_2,X_4,NaN,S"), ["target is 0 or 1", "1 rows", "'NaN'"]),
    "a target of 400 digits": (
        changed(4, f"P_2,X_4,{'9' * 400},S"),
        ["target is 0 or 1", "1 rows", "'999"],
    ),
    "an age in words": (
        PLAIN.replace("source", "source,age_approx")
        .replace("S\n", "S,old\n")
        .replace("T\n", "T,9\n"),
        ["age_approx is a number", "20 rows", "'old'"],
    ),
    "Latin-1": (changed(4, "P_2,X_4,0,Klinik Zürich").encode("latin-1"), ["UTF-8", "line 6"]),
    "UTF-16": (PLAIN.encode("utf-16"), ["UTF-8", "line 1"]),
    "UTF-16 without its mark": (PLAIN.encode("utf-16-le"), ["UTF-8", "line 1"]),
    "a NUL byte": (changed(4, "P\0_2,X_4,0,S"), ["UTF-8", "line 6"]),
    "a row of NUL bytes": (changed(4, 20 * "\0"), ["UTF-8", "line 6"]),
    "a zip": (b"PK\x03\x04" + bytes(range(256)), ["UTF-8", "line 1"]),
    "an unclosed quote": (changed(4, 'P_2,"X_4,0,S'), ["line 41", "quotes"]),
    "a newline within an id": (changed(4, 'P_2,"X\n4",0,S'), ["image_id", "1 rows", r"'X\n4'"]),
    "a newline in a source": (changed(4, 'P_2,X_4,0,"S\nT"'), ["source", "1 rows", r"'S\nT'"]),
    "a cell too many": (changed(4, "P_2,X_4,0,S,"), ["line 6", "5 cells", "has 4"]),
    "a comma at each row's end": (
        PLAIN.replace("S\n", "S,\n").replace("T\n", "T,\n"),
        ["line 2", "5 cells", "has 4"],
    ),
    "a cell too few": (changed(4, "P_2,X_4,0"), ["line 6", "3 cells", "has 4"]),
    "a table cut off": (PLAIN[:-4], ["line 41", "3 cells", "has 4"]),
    "a formula as id": (changed(4, "P_2,=HYPERLINK(1),0,S"), ["image_id", "'=HYPERLINK(1)'"]),
    "an id that begins with -": (changed(4, "P_2,-X_4,0,S"), ["image_id", "'-X_4'"]),
    "a formula as source": (
        changed(4, 'P_2,X_4,0,"=HYPERLINK(""http://x"")"'),
        ["source", "formula"],
    ),
    "a formula behind a blank": (changed(4, "P_2,X_4,0,\t=1"), ["source", "formula", "'=1'"]),
    "an id of 101 letters": (changed(4, f"P_2,{101 * 'X'},0,S"), ["image_id", "100"]),
    "a source of 101 letters": (changed(4, f"P_2,X_4,0,{101 * 'S'}"), ["source", "100"]),
    **{
        f"{name!r} as id": (changed(4, f"P_2,{name},0,S"), ["image_id", repr(name)])
        for name in ("..", "C:X_4", "X_4.exe", "train/", "/")
    },
    **{
        f"a source that begins with {sign!r}": (
            changed(4, f"P_2,X_4,0,{sign}1"),
            ["source", f"'{sign}1'"],
        )
        for sign in "=+-@"
    },
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """Forty photographs; each test puts its own marking.csv beside them."""
    place = tmp_path_factory.mktemp("tables")
    (place / "images").mkdir()
    for row in range(40):
        pixels = np.full((24, 24, 3), (90, 120, 180), np.uint8)
        pixels[row // 8, :3] = 30 * (row % 8)
        cv2.imwrite(str(place / "images" / f"X_{row}.png"), pixels)
    return place


@pytest.fixture
def folder(shared, folders) -> Path:
    return shared


def put(folder: Path, content: str | bytes) -> Path:
    path = folder / "marking.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", READ)
def test_a_table_of_another_look_is_the_same_table(name, folder):
    put(folder, PLAIN)
    plain = make_split(sources.find_dataset(str(folder)))
    put(folder, READ[name])
    found = make_split(sources.find_dataset(str(folder)))
    spelled = found["image_id"].str.replace("-", "_").str.upper()  # as files are named
    pd.testing.assert_frame_equal(found.assign(image_id=spelled), plain)
    assert len(found) == 40 and found["target"].sum() == 20


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_right_is_refused_with_a_sentence(name, folder, monkeypatch, capsys):
    content, facts = REFUSED[name]
    path = put(folder, content)
    with pytest.raises(ValueError) as raised:
        sources.find_dataset(str(folder))
    sentence = str(raised.value)
    assert sentence.startswith(str(path)) and len(sentence) < 800
    for fact in facts:
        assert fact in sentence
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stopped:
        main(["marking.csv", "--out", "split.csv"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "marking.csv" in said and "Traceback" not in said
    assert not (folder / "split.csv").exists()


def test_other_alphabets_and_long_ids_are_read(shared, folders, tmp_path):
    folder, long = Path(shutil.copytree(shared, tmp_path / "copy")), 100 * "X"
    content = changed(4, "P_é,Ä_4,0,Klinik Zürich 皮膚").replace("X_5,", long + ",")
    for old, new in (("X_4", "Ä_4"), ("X_5", long)):
        (folder / "images" / f"{old}.png").rename(folder / "images" / f"{new}.png")
    put(folder, content)
    found = sources.find_dataset(str(folder))
    split = make_split(found)
    split.to_csv(folder / "split.csv", index=False)
    again = read_split(folder / "split.csv")
    assert (
        again["image_id"][4:6].tolist() == ["Ä_4", long]
        and again["source"][4] == "Klinik Zürich 皮膚"
    )
    assert found["unusable"] == {}


def test_one_class_and_one_source(folder):
    put(folder, PLAIN.replace(",1,", ",0,"))
    with pytest.raises(ValueError, match="target is 0 in 40 rows"):
        make_split(sources.find_dataset(str(folder)))
    put(folder, PLAIN.replace(",T\n", ",S\n"))
    found = sources.find_dataset(str(folder))
    assert list(found["colour_order_by_source"]) == ["S"]
    assert set(make_split(found)["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize("place", ["nothing", "a folder", "a pipe", "a broken link"])
def test_what_is_no_file_is_no_table(place, folder, tmp_path):
    """As marking.csv, `ids` and `pairs` alike; a pipe is not waited for."""
    path = tmp_path / "list.csv"
    {
        "nothing": lambda: None,
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "a broken link": lambda: path.symlink_to("gone"),
    }[place]()
    dataset = {"csv": str(put(folder, PLAIN)), "ids": "", "masks_folder": ""}
    message = "expected a csv at .*(list.csv|gone), found (nothing|a folder or pipe)$"
    with pytest.raises(FileNotFoundError, match=message):
        read_table({**dataset, "ids": str(path)})
    with pytest.raises(FileNotFoundError, match=message):
        read_table(dataset, pairs=str(path))
    with pytest.raises(FileNotFoundError, match=message):
        read_table({**dataset, "csv": path})


@pytest.mark.parametrize(
    "content, facts",
    [
        ("", ["no rows"]),
        ("image_id\n", ["no rows"]),
        ("name\nX_1\n", ["columns name;", "image_id"]),
        ("image_id;source\nX_1;S\n", ["columns image_id;source;", "image_id missing"]),
        ("X_1\nX_2\n", ["columns X_1;", "image_id"]),
        ("image_id\nX_1,\n", ["line 2", "2 cells", "has 1"]),
        ("image_id\nX_1\n\xe9\n".encode("latin-1"), ["UTF-8", "line 3"]),
    ],
)
def test_a_list_of_ids_that_is_none_is_refused(content, facts, folder):
    path = folder / "list.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as raised:
        read_table({"csv": str(put(folder, PLAIN)), "ids": str(path), "masks_folder": ""})
    assert str(raised.value).startswith(str(path))
    for fact in facts:
        assert fact in str(raised.value)


def test_ids_are_compared_as_the_table_is(folder):
    path = folder / "list.csv"
    path.write_text("image_id \nX_1\u00a0\n X_5\nX_7\u200b\n", encoding="utf-8")
    dataset = {"csv": str(put(folder, PLAIN)), "ids": str(path), "masks_folder": ""}
    assert read_table(dataset)["image_id"].tolist() == ["X_1", "X_5", "X_7"]
    assert sources.find_dataset(str(folder), ids=str(path))["rows"] == 3


@pytest.mark.parametrize(
    "content, facts",
    [
        ("", ["no rows"]),
        ("one,two\n", ["no rows"]),
        ("X_1,X_2\nX_3,X_4\n", ["first line", "X_1, X_2"]),
        ("one,two\nY_1,Y_2\nY_3,Y_4\n", ["ids of the table", "2 rows", "Y_1, Y_2"]),
        ("one;two\nX_1;X_2\n", ["ids of the table", "1 rows", "X_1;X_2"]),
        ("one\nX_1\n", ["['one']", "two"]),
        ("one,two\nX_1,X_2\nX_3\n", ["line 3", "1 cells", "has 2"]),
        ("one,two\nX_1,X_2\0\n", ["UTF-8", "line 2"]),
        ("one,two\nX_1,X_\xe9\n".encode("latin-1"), ["UTF-8", "line 2"]),
    ],
)
def test_pairs_that_are_none_are_refused(content, facts, folder):
    path = folder / "pairs.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as raised:
        read_table({"csv": str(put(folder, PLAIN)), "ids": "", "masks_folder": ""}, pairs=str(path))
    for fact in ["pairs", *facts]:
        assert fact in str(raised.value)


def test_pairs_with_unknown_ids_link_the_others(folder):
    """A part of the set lacks some that the challenge's list names; X_0 and X_38 pair with one."""
    (folder / "pairs.csv").write_text("one,two\nX_0,gone\ngone,X_38\nX_4,\n")
    dataset = {"csv": str(put(folder, PLAIN)), "ids": "", "masks_folder": ""}
    group = read_table(dataset, pairs=str(folder / "pairs.csv")).set_index("image_id")["group"]
    assert group["X_0"] == group["X_38"] != group["X_4"]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda content: content[:100], "cannot be unpacked .*end-of-stream.*: copy it again"),
        (lambda content: b"no gzip", "cannot be unpacked .*gzip"),
        (lambda content: content[:40] + bytes(40) + content[80:], "cannot be unpacked"),
    ],
)
def test_a_damaged_gz_is_refused(spoil, message, folder):
    path = folder / "table.csv.gz"
    path.write_bytes(spoil(gzip.compress(PLAIN.encode())))
    with pytest.raises(ValueError, match=message):
        read_marking(path)


@pytest.mark.long
def test_a_table_that_may_not_be_read_is_named_by_the_command(folder):
    """A real process without root's override of modes."""
    put(folder, PLAIN).chmod(0)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "helpers.preprocess",
            str(folder / "marking.csv"),
            "--out",
            str(folder / "split.csv"),
        ],
        cwd=workspace.PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=limits.no_overrides,
        check=False,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"Permission denied: '{folder / 'marking.csv'}'" in done.stderr.replace(
        "PosixPath(", ""
    ).replace(")", "")


@pytest.fixture
def own(shared, folders, tmp_path) -> Path:
    """The forty photographs again, for a test that adds to them."""
    return Path(shutil.copytree(shared, tmp_path / "own"))


def add_copies(folder: Path, targets: dict[int, int]) -> None:
    """Photographs under second ids, of nobody known and another source, with these targets."""
    lines = [f",Y_{row},{target},U\n" for row, target in targets.items()]
    put(folder, PLAIN + "".join(lines))
    for row in targets:
        shutil.copy(folder / "images" / f"X_{row}.png", folder / "images" / f"Y_{row}.png")


def test_a_file_that_stands_twice_stays_on_one_side(own, capsys):
    add_copies(own, {row: row // 2 % 2 for row in range(0, 40, 3)})
    found = sources.find_dataset(str(own))
    side = make_split(found).set_index("image_id")["split"]
    assert [sorted(ids) for ids in found["copies"]] == [
        [f"X_{n}", f"Y_{n}"] for n in range(0, 40, 3)
    ]
    assert all(side[f"X_{row}"] == side[f"Y_{row}"] for row in range(0, 40, 3))
    assert "14 photographs" in capsys.readouterr().out


def test_a_photograph_of_two_targets_is_refused_or_left_out_and_listed(own):
    add_copies(own, {4: 1, 8: 0, 12: 0})  # X_4 is benign
    with pytest.raises(ValueError) as raised:
        sources.find_dataset(str(own))
    for fact in ("2 of 43", "X_4 (target 0)", "Y_4 (target 1)"):
        assert fact in str(raised.value)
    found = sources.find_dataset(str(own), unusable=0.1)
    assert set(found["unusable"]) == {"X_4", "Y_4"} and found["rows"] == 41
    assert found["copies"] == [["X_8", "Y_8"], ["X_12", "Y_12"]]
    split = make_split(found)
    assert len(split) == 41 and not split["image_id"].isin(["X_4", "Y_4"]).any()


def test_files_that_spell_their_ids_in_another_way_are_found_and_told(own, capsys):
    put(own, PLAIN)
    plain = make_split(sources.find_dataset(str(own)))
    assert capsys.readouterr().out == ""
    for row in range(5):
        (own / "images" / f"X_{row}.png").rename(own / "images" / f"x-{row:03}.PNG")
    split = make_split(sources.find_dataset(str(own)))
    assert split["path"][:6].tolist() == [*[f"x-{row:03}.PNG" for row in range(5)], "X_5.png"]
    pd.testing.assert_frame_equal(split.drop(columns="path"), plain.drop(columns="path"))
    said = capsys.readouterr().out
    assert "5 photographs" in said and "'X_0'" in said and "x-000.PNG" in said


def test_the_command_tells_of_spellings_and_of_nobody(folder, monkeypatch, capsys):
    """Half of each patient's photographs in another spelling, and eight of nobody known."""
    content = PLAIN.replace(",X_1", ".0,X_1").replace("P_", "")
    for row in range(32, 40):
        content = content.replace(f"{row // 2},X_{row},", f"not recorded,X_{row},")
    put(folder, content)
    monkeypatch.chdir(folder)
    assert main(["marking.csv", "--out", "split.csv"]) == 0
    said = capsys.readouterr().out
    assert (
        "8 photographs" in said and "'not recorded'" in said and "0 groups are on two sides" in said
    )
    split = read_split(folder / "split.csv")
    assert split["group"].nunique() == 16 + 8
    (folder / "split.csv").unlink()
