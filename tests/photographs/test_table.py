"""The reader's tables: what a cell is taken for, what is missing, and what is refused by name."""

import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.photographs.split import group_rows
from helpers.photographs.table import COLUMNS, check_classes, read_csv, read_marking

HEADER = "patient_id,image_id,target,source\n"
# what spreadsheets, web pages and other alphabets leave at the ends of a cell
BLANKS = [" ", "\t", "\u00a0", "\u2009", "\u202f", "\u3000", "\u200b", "\ufeff", " \u00a0\u200e "]


@pytest.fixture
def write(tmp_path):
    """A function that writes a table and returns its path."""

    def put(content: str) -> Path:
        path = tmp_path / "marking.csv"
        path.write_text(content, encoding="utf-8")
        return path

    return put


def test_columns_are_taken_by_name_and_targets_may_be_floats(write):
    table = read_marking(
        write("\ufeffsource,target,extra,image_id,patient_id\nISIC20,0.0,x,a,IP_1\n,1.0,y,b-2,\n")
    )
    assert table["target"].tolist() == [0, 1] and table["target"].dtype == int
    assert table["image_id"].tolist() == ["a", "b-2"] and table["extra"].tolist() == ["x", "y"]
    assert table["source"].tolist() == ["ISIC20", "unknown"]
    assert table["patient_id"].isna().tolist() == [False, True]


def test_ids_that_look_like_numbers_stay_text(write):
    table = read_marking(write(HEADER + "007,0010,0,1\n8,10,1,1\n"))
    assert table["image_id"].tolist() == ["0010", "10"]
    assert table["patient_id"].tolist() == ["007", "8"]


@pytest.mark.parametrize("blank", BLANKS)
def test_a_blank_around_a_patient_does_not_make_two_of_one(blank, write):
    rows = f"IP_1,a,0,S\nIP_1{blank},b,1,S\n{blank}IP_1,c,0,S\nIP_2,d,0,S\n"
    table = read_marking(write(HEADER + rows))
    assert table["patient_id"].tolist() == ["IP_1", "IP_1", "IP_1", "IP_2"]
    assert group_rows(table).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("blank", BLANKS)
def test_a_cell_of_blanks_alone_is_empty(blank, write):
    table = read_marking(write(HEADER + f"{blank},a,0,{blank}\n{blank},b,1,S\n"))
    assert table["patient_id"].isna().all() and group_rows(table).tolist() == [0, 1]
    assert table["source"].tolist() == ["unknown", "S"]


def test_blanks_within_a_cell_are_one_space(write):
    table = read_marking(write(HEADER + "Ada L,a,0,S\nAda\u00a0L,b,1,S\nAda  L,c,1,S\n"))
    assert group_rows(table).tolist() == [0, 0, 0]


def test_an_accent_is_one_character_or_two_and_the_same_name(write):
    """A Mac names files with two."""
    names = [unicodedata.normalize(form, "Zoë_Ä") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    table = read_marking(write(HEADER + f"{names[0]},a,0,S\n{names[1]},{names[1]},1,S\n"))
    assert group_rows(table).tolist() == [0, 0]
    assert table["image_id"].tolist() == ["a", names[0]]


@pytest.mark.parametrize("word", ["NA", "null", "None", "nan", "NaN", "N/A", "NULL", "<NA>"])
def test_a_word_that_programs_write_for_nothing_is_a_word(word, write):
    table = read_csv(write(f"one,two\n{word},x\n,y\n"))
    assert table["one"].tolist()[0] == word and table["one"].isna().tolist() == [False, True]


def test_an_id_null_is_an_id_and_a_source_na_is_a_source(write):
    table = read_marking(write(HEADER + "p,null,0,NA\nq,nan,1,None\nr,c,1,\n"))
    assert table["image_id"].tolist() == ["null", "nan", "c"]
    assert table["source"].tolist() == ["NA", "None", "unknown"]


def test_an_age_may_be_unknown_in_any_of_these_words(write):
    ages = ["40", "55.0", "", "NA", "nan", "None", "null", "N/A"]
    rows = [f"p,x{number},0,S,{age}\n" for number, age in enumerate(ages)]
    table = read_marking(write(HEADER.strip() + ",age_approx\n" + "".join(rows)))
    np.testing.assert_array_equal(table["age_approx"], [40, 55] + [np.nan] * 6)


def test_a_column_that_nobody_needs_may_stand_twice_and_the_first_counts(write):
    table = read_marking(
        write(HEADER.strip() + ",age_approx,age_approx\np,a,0,S,40,41\nq,b,1,S,50,x\n")
    )
    assert list(table) == [*COLUMNS[:4], "age_approx"] and table["age_approx"].tolist() == [40, 50]


def test_a_table_is_what_pandas_reads_of_it(real_data):
    """The full table has neither blanks nor such words: the plainest reader gives the same."""
    path = real_data / "marking-full.csv.gz"
    plain = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    pd.testing.assert_frame_equal(read_csv(path), plain)


@pytest.mark.parametrize(
    "content, facts",
    [
        ("image_id,target,source\na,0,s\n", ["patient_id"]),
        ("patient_id,label\np,0\n", ["image_id, target, source"]),
        (HEADER, ["no rows"]),
        (HEADER + "p,a,0,s\np,b,2,s\n", ["target", "0 or 1", "1 rows", "'2'"]),
        (HEADER + "p,a,0,s\np,b,,s\n", ["target", "0 or 1", "1 rows", "''"]),
        (HEADER + "p,a,0,s\np,b,NaN,s\n", ["target", "0 or 1", "1 rows", "'NaN'"]),
        (HEADER + "p,a,0,s\np,b,0.5,s\np,c,benign,s\n", ["target", "0 or 1", "2 rows", "'0.5'"]),
        (HEADER + "p,a,0,s\np,b,0,s\nq,a,1,s\n", ["1 image ids", "'a'"]),
        (HEADER + "p,a,0,s\np,a\u00a0,0,s\n", ["1 image ids", "'a'"]),
        (HEADER + "p,a,0,s\np,,0,s\n", ["1 image ids", "empty"]),
        (HEADER + "p,a,0,s\np,../b,0,s\np,b.jpg,0,s\n", ["1 image ids", "'b.jpg'"]),
        (HEADER + "p,a,0,s\np,b c,0,s\n", ["image_id", "'b c'"]),
        (HEADER.strip() + ",age_approx\np,a,0,s,٣٤\n", ["age_approx", "number"]),
    ],
)
def test_what_cannot_be_right_is_named(content, facts, write):
    with pytest.raises(ValueError) as raised:
        read_marking(write(content))
    for fact in ["marking.csv", *facts]:
        assert fact in str(raised.value)


@pytest.mark.parametrize("targets", [[], [0, 0, 0], [1]])
def test_a_figure_of_one_class_is_refused(targets):
    with pytest.raises(ValueError, match=f"the test side holds {len(targets)} photographs"):
        check_classes(np.array(targets), "the test side")
    check_classes(np.array([0, 1]), "the test side")
