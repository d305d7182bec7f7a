"""Tables as readers have them: from spreadsheets, cut off, in other encodings, with cells that do not belong there.

Each is a real marking.csv beside forty photographs, read by `find_dataset`, by the split and by the command. It ends in
the rows, as of the plain table, or in a ValueError that names the file, what was found and what was expected.
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
    "cells in quotes": "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in LINES
    ),
}
EXPECTED = "missing or standing twice: name each once in the first line, with commas between"
FOREIGN = (
    r"is damaged or not UTF-8 \(Latin-1 or UTF-16, perhaps\): see line {}\. Save it as 'CSV UTF-8'"
)
ID = "image_id is up to 100 letters, digits, '_' and '-', no '-' first"
SOURCE = "source is up to 100 characters that do not begin as a spreadsheet's formula"
REFUSED = {
    "0 bytes": ("", "has no rows: expected a line of column names, then a row for each"),
    "a header alone": (LINES[0] + "\n", "has no rows"),
    "empty lines alone": ("\n\n\n", "has no rows"),
    "a column missing": (columns("patient_id", "image_id", "source"), f"; target {EXPECTED}"),
    "a column renamed": (PLAIN.replace("image_id", "image_name"), f"; image_id {EXPECTED}"),
    "a column in capitals": (PLAIN.replace("image_id", "Image_ID"), f"; image_id {EXPECTED}"),
    "a space before a column's name": (
        PLAIN.replace("image_id", " image_id"),
        f"; image_id {EXPECTED}",
    ),
    "a column twice": (
        columns("target", "patient_id", "image_id", "target", "source"),
        f"; target {EXPECTED}",
    ),
    "semicolons": (
        PLAIN.replace(",", ";"),
        f"patient_id;image_id;target;source; patient_id, image_id, .* {EXPECTED}",
    ),
    "tabs": (PLAIN.replace(",", "\t"), EXPECTED),
    "no header": (PLAIN.partition("\n")[2], EXPECTED),
    "a web page": ("<!DOCTYPE html>\n<html>\n</html>\n", EXPECTED),
    "a comment above": ("# from a friend\n" + PLAIN, "line 2: 4 cells, where the first line has 1"),
    "an id twice": (
        PLAIN + LINES[5] + "\n",
        "1 image ids are empty or stand twice, the first 'X_4'",
    ),
    "ids that differ in capitals": (
        changed(4, "P_2,x_5,0,S"),
        "stand twice, the first 'X_5' .*capitals alone",
    ),
    "an id missing": (changed(4, "P_2,,0,S"), "1 image ids are empty or stand twice"),
    "the header again": (PLAIN + PLAIN, "target is 0 or 1; 1 rows differ, the first 'target'"),
    "targets as words": (
        PLAIN.replace(",0,", ",benign,"),
        "target is 0 or 1; 20 rows differ, the first 'benign'",
    ),
    "a target of 2": (changed(4, "P_2,X_4,2,S"), "target is 0 or 1; 1 rows differ, the first '2'"),
    "a target of 0.5": (
        changed(4, "P_2,X_4,0.5,S"),
        "target is 0 or 1; 1 rows differ, the first '0.5'",
    ),
    "a target of NaN": (
        changed(4, "P_2,X_4,NaN,S"),
        "target is 0 or 1; 1 rows differ, the first ''",
    ),
    "a target of 400 digits": (
        changed(4, f"P_2,X_4,{'9' * 400},S"),
        "target is 0 or 1; 1 rows differ, the first '999",
    ),
    "an age in words": (
        PLAIN.replace("source", "source,age_approx")
        .replace("S\n", "S,old\n")
        .replace("T\n", "T,9\n"),
        "age_approx is a number, or empty; 20 rows differ, the first 'old'",
    ),
    "Latin-1": (changed(4, "P_2,X_4,0,Klinik Zürich").encode("latin-1"), FOREIGN.format(6)),
    "UTF-16": (PLAIN.encode("utf-16"), FOREIGN.format(1)),
    "UTF-16 without its mark": (PLAIN.encode("utf-16-le"), FOREIGN.format(1)),
    "a NUL byte": (changed(4, "P\0_2,X_4,0,S"), FOREIGN.format(6)),
    "a row of NUL bytes": (changed(4, 20 * "\0"), FOREIGN.format(6)),
    "a zip": (b"PK\x03\x04" + bytes(range(256)), FOREIGN.format(1)),
    "an unclosed quote": (
        changed(4, 'P_2,"X_4,0,S'),
        "line 41: unexpected end of data. Are its quotes closed",
    ),
    "a newline in an id": (
        changed(4, 'P_2,"X_4\n",0,S'),
        f"{ID}; 1 rows differ, the first 'X_4.n'",
    ),
    "a newline in a source": (changed(4, 'P_2,X_4,0,"S\nT"'), SOURCE),
    "a cell too many": (changed(4, "P_2,X_4,0,S,"), "line 6: 5 cells, where the first line has 4"),
    "a comma at each row's end": (
        PLAIN.replace("S\n", "S,\n").replace("T\n", "T,\n"),
        "line 2: 5 cells",
    ),
    "a cell too few": (changed(4, "P_2,X_4,0"), "line 6: 3 cells, where the first line has 4"),
    "a table cut off": (PLAIN[:-4], "line 41: 3 cells, where the first line has 4"),
    "a formula as id": (changed(4, "P_2,=HYPERLINK(1),0,S"), ID),
    "an id that begins with -": (changed(4, "P_2,-X_4,0,S"), ID),
    "a formula as source": (changed(4, 'P_2,X_4,0,"=HYPERLINK(""http://x"")"'), SOURCE),
    "an id of 101 letters": (changed(4, f"P_2,{101 * 'X'},0,S"), ID),
    "a source of 101 letters": (changed(4, f"P_2,X_4,0,{101 * 'S'}"), SOURCE),
    "spaces around an id": (changed(4, "P_2, X_4 ,0,S"), f"{ID}; 1 rows differ, the first ' X_4 '"),
    **{
        f"{name!r} as id": (changed(4, f"P_2,{name},0,S"), ID)
        for name in ("../X_4", "/etc/passwd", "..", "C:X_4", "a\\X_4", "X_4.jpg")
    },
    **{
        f"a source that begins with {sign!r}": (changed(4, f"P_2,X_4,0,{sign}1"), SOURCE)
        for sign in "=+-@\t"
    },
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """Forty photographs; each test puts its own marking.csv beside them."""
    place = tmp_path_factory.mktemp("tables")
    (place / "images").mkdir()
    for row in range(40):
        cv2.imwrite(
            str(place / "images" / f"X_{row}.jpg"), np.full((24, 24, 3), (90, 120, 180), np.uint8)
        )
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
    pd.testing.assert_frame_equal(found, plain)
    assert len(found) == 40 and found["target"].sum() == 20


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_right_is_refused_with_a_sentence(name, folder, monkeypatch, capsys):
    content, message = REFUSED[name]
    path = put(folder, content)
    with pytest.raises(ValueError, match=message) as raised:
        sources.find_dataset(str(folder))
    assert str(raised.value).startswith(str(path)) and len(str(raised.value)) < 800
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
        (folder / "images" / f"{old}.jpg").rename(folder / "images" / f"{new}.jpg")
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
    with pytest.raises(ValueError, match="every target is 0: a split needs both classes"):
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
    "content, message",
    [
        ("", "has no rows"),
        ("image_id\n", "has no rows"),
        ("name\nX_1\n", f"list.csv has the columns name; image_id {EXPECTED}"),
        ("image_id;source\nX_1;S\n", f"image_id {EXPECTED}"),
        ("X_1\nX_2\n", "list.csv has the columns X_1; image_id"),
        ("image_id\nX_1,\n", "line 2: 2 cells, where the first line has 1"),
        ("image_id\nX_1\n\xe9\n".encode("latin-1"), FOREIGN.format(3)),
    ],
)
def test_a_list_of_ids_that_is_none_is_refused(content, message, folder):
    path = folder / "list.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as raised:
        read_table({"csv": str(put(folder, PLAIN)), "ids": str(path), "masks_folder": ""})
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "has no rows"),
        ("one,two\n", "has no rows"),
        ("X_1,X_2\nX_3,X_4\n", "needs a first line that names its two columns, and ids of"),
        ("one,two\nY_1,Y_2\n", "needs a first line that names its two columns, and ids of"),
        ("one;two\nX_1;X_2\n", "needs a first line that names its two columns, and ids of"),
        ("one\nX_1\n", r"pairs has the columns \['one'\], expected two"),
        ("one,two\nX_1,X_2\nX_3\n", "line 3: 1 cells, where the first line has 2"),
        ("one,two\nX_1,X_2\0\n", FOREIGN.format(2)),
        ("one,two\nX_1,X_\xe9\n".encode("latin-1"), FOREIGN.format(2)),
    ],
)
def test_pairs_that_are_none_are_refused(content, message, folder):
    path = folder / "pairs.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_table({"csv": str(put(folder, PLAIN)), "ids": "", "masks_folder": ""}, pairs=str(path))


def test_pairs_with_unknown_ids_link_the_others(folder):
    """The challenge's list names photographs that a part of the set lacks: X_0 and X_38 are pairs of one of these."""
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
        timeout=60,
        preexec_fn=limits.no_overrides,
        check=False,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"Permission denied: '{folder / 'marking.csv'}'" in done.stderr.replace(
        "PosixPath(", ""
    ).replace(")", "")
