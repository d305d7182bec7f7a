"""Lists of ids and pairs that come from elsewhere: what they mean is found, counted or refused."""

import pandas as pd
import pytest

from helpers.photographs.lists import keep_listed, read_pairs
from helpers.photographs.split import make_split, read_table

TABLE = pd.DataFrame({"image_id": [f"ISIC_{number:07}" for number in range(40)]})
SPELLED = {  # how a list writes ISIC_0000004
    "itself": "ISIC_0000004",
    "its file": "ISIC_0000004.jpg",
    "another ending": "ISIC_0000004.JPEG",
    "a path": "train/images/ISIC_0000004.jpg",
    "a path of Windows": "D:\\isic\\ISIC_0000004.jpg",
    "blanks": "\u00a0ISIC_0000004 ",
    "small letters": "isic_0000004",
    "another sign": "ISIC-0000004",
    "no zeros": "ISIC_4",
    "full width": "ISIC_000000\uff14",
    "a mark of no width": "ISIC_0000004\u200b",
}


@pytest.fixture
def put(tmp_path):
    """A function that writes a list and returns its path as text."""

    def write(content: str) -> str:
        path = tmp_path / "list.csv"
        path.write_text(content, encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize("spelled", SPELLED.values(), ids=list(SPELLED))
def test_ids_are_looked_up_in_the_table_and_counted(spelled, put):
    rows, note = keep_listed(TABLE, put(f"image_id\nISIC_0000002\n{spelled}\n"))
    assert rows["image_id"].tolist() == ["ISIC_0000002", "ISIC_0000004"]
    assert " 2 of " in note and " 40 " in note


def test_an_id_that_is_none_is_named_with_the_nearest(put):
    with pytest.raises(ValueError) as raised:
        keep_listed(TABLE, put("image_id\nISIC_0000002\nISIC_0000004_x\nISIC_9999999\n"))
    for fact in ("list.csv", "3", "2 of them", "ISIC_0000004_x ", "ISIC_0000004)"):
        assert fact in str(raised.value)


@pytest.mark.parametrize("spelled", SPELLED.values(), ids=list(SPELLED))
def test_pairs_are_looked_up_in_the_table(spelled, put):
    pairs, notes = read_pairs(put(f"one,two\nISIC_0000002,{spelled}\n"), TABLE["image_id"])
    assert pairs.to_numpy().tolist() == [["ISIC_0000002", "ISIC_0000004"]] and notes == []


def test_pairs_with_the_endings_of_files_keep_both_on_one_side(photographs, put, capsys):
    lines = [f"images/X_{2 * row}.jpg,x_{38 - 2 * row}.JPG" for row in range(9)]
    split = make_split(photographs, pairs=put("one,two\n" + "\n".join(lines) + "\n"))
    side = split.set_index("image_id")["split"]
    assert all(side[f"X_{2 * row}"] == side[f"X_{38 - 2 * row}"] for row in range(9))
    assert "9 pairs were given; the table has both ids of 9" in capsys.readouterr().out


def test_pairs_that_mostly_name_nothing_are_refused(put):
    rows = [f"MEL-{number},MEL-{number + 50}" for number in range(19)]
    path = put("one,two\nISIC_0000001,ISIC_0000003\n" + "\n".join(rows) + "\n")
    with pytest.raises(ValueError) as raised:
        read_pairs(path, TABLE["image_id"])
    for fact in ("list.csv", " 40 ", " 2 ", "38", "MEL-0 ", "ISIC_0"):
        assert fact in str(raised.value)


def test_pairs_of_photographs_that_a_part_of_an_archive_lacks_are_read(put):
    """The challenge's whole list, for a table of a few of its photographs."""
    rows = [f"ISIC_{number:07},ISIC_{number + 1:07}" for number in range(38, 200, 2)]
    pairs, notes = read_pairs(put("one,two\n" + "\n".join(rows) + "\n"), TABLE["image_id"])
    assert len(pairs) == 81 and notes == []


def test_few_foreign_ids_among_pairs_are_told(put):
    path = put("one,two\nISIC_0000001,ISIC_0000003\nISIC_0000004,ISIC_0000005_b\n")
    pairs, notes = read_pairs(path, TABLE["image_id"])
    assert len(pairs) == 2 and len(notes) == 1
    assert "ISIC_0000005_b " in notes[0] and "ISIC_0000005)" in notes[0]


def test_a_pair_with_itself_is_told(put):
    content = "one,two\nISIC_0000001,isic_0000001.jpg\nISIC_0000003,ISIC_0000003_downsampled\n"
    pairs, notes = read_pairs(put(content + "ISIC_0000004,ISIC_0000005\n"), TABLE["image_id"])
    assert len(pairs) == 3 and len(notes) == 1 and notes[0].startswith("2 pairs")


@pytest.mark.parametrize("first", ["ISIC_0000001,ISIC_0000002", "ISIC_0000001.jpg,isic_2"])
def test_a_first_line_of_ids_is_refused(first, put):
    with pytest.raises(ValueError, match="first line"):
        read_pairs(put(f"{first}\nISIC_0000003,ISIC_0000004\n"), TABLE["image_id"])


@pytest.mark.parametrize(
    "content",
    [
        ",one,two\n0,ISIC_0000001,ISIC_0000003\n1,ISIC_0000004,ISIC_0000005\n",
        "one,two,same\nISIC_0000001,ISIC_0000003,True\nISIC_0000004,ISIC_0000005,True\n",
        "one,r,two\nISIC_0000001,.99,ISIC_0000003\nISIC_0000004,.98,ISIC_0000005\n",
    ],
)
def test_a_column_that_holds_no_ids_is_left_out_and_told(content, put):
    pairs, notes = read_pairs(put(content), TABLE["image_id"])
    expected = [["ISIC_0000001", "ISIC_0000003"], ["ISIC_0000004", "ISIC_0000005"]]
    assert pairs.to_numpy().tolist() == expected
    assert len(notes) == 1 and "one and two" in notes[0]


def test_three_columns_of_ids_are_refused(put):
    with pytest.raises(ValueError, match="expected two"):
        read_pairs(put("a,b,c\nISIC_0000001,ISIC_0000002,ISIC_0000003\n"), TABLE["image_id"])


def test_a_pair_of_two_targets_is_told_and_stays(photographs, put, capsys):
    path = put("one,two\nX_0,X_2\nX_4,X_8\n")
    split = make_split(photographs, pairs=path).set_index("image_id")
    assert split["split"]["X_0"] == split["split"]["X_2"]
    assert split["target"][["X_0", "X_2"]].tolist() == [0, 1]
    lines = [line for line in capsys.readouterr().out.splitlines() if "two targets" in line]
    assert len(lines) == 1 and lines[0].startswith("1 ")
    assert "X_0 (0)" in lines[0] and "X_2 (1)" in lines[0]


def test_twins_of_two_targets_are_told(photographs, capsys):
    with open(photographs["csv"], "a") as table:
        table.write(",X_0_downsampled,1,T\n,X_2_downsampled,1,T\n")
    make_split(photographs)
    lines = [line for line in capsys.readouterr().out.splitlines() if "two targets" in line]
    assert len(lines) == 1 and lines[0].startswith("1 ") and "X_0_downsampled (1)" in lines[0]


def test_links_that_make_one_large_group_are_told(photographs, put, capsys):
    rows = [f"X_{number},X_{number + 4}" for number in range(0, 20, 2)]
    make_split(photographs, pairs=put("one,two\n" + "\n".join(rows) + "\n"))
    lines = [line for line in capsys.readouterr().out.splitlines() if "largest group" in line]
    assert lines == []
    rows += [f"X_{number},X_{number + 4}" for number in range(18, 28, 2)]
    table = read_table(photographs, pairs=put("one,two\n" + "\n".join(rows) + "\n"))
    assert table["group"].value_counts().max() == 16
    assert capsys.readouterr().out == ""  # only the split tells
