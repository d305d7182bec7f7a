"""Who is the same: spellings of patients and photographs, words for nobody, files that repeat.

The tables are small and written here; a group that crosses is counted in a loop.
"""

import unicodedata
import zlib

import pandas as pd
import pytest

from helpers.photographs import identity
from helpers.photographs.split import group_rows, make_split
from helpers.photographs.table import read_marking, read_marking_and_notes

HEADER = "patient_id,image_id,target,source\n"
SPELLINGS = {  # of one patient, that a table has had
    "capitals": ["IP_12", "ip_12", "Ip_12"],
    "blanks": ["IP_12", " IP_12", "IP_12\u00a0", "\u3000IP_12", "IP_12\u2009"],
    "blanks between": ["Ada L", "Ada  L", "Ada\u00a0L", "ada\tl"],
    "dashes": ["IP-12", "IP\u201012", "IP\u201112", "IP\u201312", "IP\u221212", "IP\uff0d12"],
    "other signs": ["IP_12", "IP-12", "IP 12", "IP12", "IP/12", "IP.12", "ip#12"],
    "marks of no width": ["IP_12", "IP_\u200b12", "\ufeffIP_12", "IP\u00ad_12", "IP_12\u200e"],
    "full width": ["IP_12", "\uff29\uff30_\uff11\uff12", "IP_\uff11\uff12", "IP\uff3f12"],
    "accents": [unicodedata.normalize(form, "Zoë 1") for form in ("NFC", "NFD", "NFKD")],
    "ligatures and sharp s": ["STRASSE 1", "straße 1", "Stra\u00dfe 1"],
    "a number": [
        "12",
        "12.0",
        "12.00",
        "012",
        "0012",
        "12,0",
        "'12",
        '=""12""',
        "#12",
        "\u0661\u0662",
    ],
    "zeros within": ["IP_0012", "IP_12", "ip-012"],
    "zero": ["P0", "P00", "P_000"],
    "two alphabets": ["AB_1", "\u0410\u0412_1", "A\u0412_1", "\u0430b_1".replace("b", "\u0432")],
    "a rounded number": ["1.20000E+12", "1200000000000"],
}
DIFFERENT = {  # patients that must not become one
    "numbers": ["1", "10", "11", "100", "101"],
    "digits of ISIC": ["IP_7279968", "IP_7279986", "IP_7279698"],
    "prefixes": ["IP_12", "BCN_12", "HAM_12"],
    "numbers in parts": ["1-12", "11-2", "1-1-2", "112"],
    "parts of a decimal": ["1.1", "1.10", "1.2"],
    "a letter behind": ["12", "12a", "12b"],
    "names": ["Müller", "Muller", "Miller", "Ada L", "Adal"],
    "vowel signs": ["कि", "का", "क"],
    "sides": ["P1 left", "P1 right"],
    "x in a name": ["X_1", "XX_1", "max"],
}
NOBODIES = """
unknown;Unknown; UNKNOWN ;(unknown);-;--;\u2013;?;???;*;.;_;-1;-1.0;-9;-99;-999;0;00;0.0;99;999;9999
9999.0;none;None;NONE;missing;Missing;n.a.;N/A;#N/A;<NA>;na;NaN;nan;NaT;null;NULL;nil;xxx;XXXX;x
not available;Not Available;not_available;not recorded;not-recorded;anonymous;Anonymized;#REF!
#VALUE!;#NAME?;patient unknown;unknown patient;ID missing;no patient id;IP_nan;IP_None;IP_unknown
IP_;TBD;deidentified;de-identified;unbekannt;Unbekannt;k.A.;keine Angabe;inconnu;Inconnue
non renseigné;NON RENSEIGNÉ;desconocido;sin datos;desconhecido;sconosciuto;onbekend;okänd;nieznany
неизвестно;нет данных;bilinmiyor;未知;不明;미상;غير معروف;अज्ञात;\uff35nknown;n\uff0fa;un\u00adknown
"""
NOBODIES = NOBODIES.strip("\n").replace("\n", ";").split(";")


@pytest.fixture
def write(tmp_path):
    """A function that writes a table of these patients and returns its path."""

    def put(patients, header=HEADER, rest="S"):
        rows = [f'"{name}",x{row}y,{row % 2},{rest}\n' for row, name in enumerate(patients)]
        path = tmp_path / "marking.csv"
        path.write_text(header + "".join(rows), encoding="utf-8")
        return path

    return put


@pytest.mark.parametrize("kind", SPELLINGS)
def test_a_patient_under_several_spellings_is_one_and_it_is_told(kind, write):
    names = SPELLINGS[kind]
    table, notes = read_marking_and_notes(write([*names, "another 77"]))
    groups = group_rows(table)
    assert groups.tolist() == [0] * len(names) + [1]
    assert table["patient_id"].nunique() == 2  # notebooks compare the column itself
    assert len(notes) >= 1 and any("patient_id" in note and " 1 " in note for note in notes)


@pytest.mark.parametrize("kind", DIFFERENT)
def test_patients_that_differ_stay_apart_and_nothing_is_told(kind, write):
    names = DIFFERENT[kind]
    table, notes = read_marking_and_notes(write(names))
    assert table["patient_id"].tolist() == names and notes == []
    assert group_rows(table).tolist() == list(range(len(names)))


def test_what_was_linked_is_counted_by_how_it_differs(write):
    names = ["A_1", "a_1", "B_2", "b_2", "C_3", "C-3", "D_4", "D_04", "E_5", "E_6"]
    _, notes = read_marking_and_notes(write(names))
    facts = [(" 2 ", "capitals", "'A_1' = 'a_1'"), (" 1 ", "signs", "'C_3' = 'C-3'")]
    facts += [(" 1 ", "zeros", "'D_4' = 'D_04'")]
    assert len(notes) == 3
    for note, own in zip(notes, facts, strict=True):
        assert all(fact in note for fact in own)


@pytest.mark.parametrize("word", NOBODIES)
def test_a_word_for_nobody_is_no_patient_and_is_counted(word, write):
    names = ["IP_1", "IP_1", "IP_2", word, word, word]
    table, notes = read_marking_and_notes(write(names))
    assert table["patient_id"].isna().tolist() == [False] * 3 + [True] * 3
    assert group_rows(table).tolist() == [0, 0, 1, 2, 3, 4]
    assert len([note for note in notes if note.startswith("3 photographs")]) == 1


@pytest.mark.parametrize(
    "name", ["0", "99", "999", "NA", "N.A.", "n.d.", "x", "nil"], ids=lambda name: f"id {name}"
)
def test_where_others_are_written_so_it_may_be_somebody_and_that_is_told(name, write):
    """Numbers from 0 on, or initials: a real patient taken for nobody would cross the split."""
    numbers = name.isdecimal()
    others = ["1", "2", "3", "4"] if numbers else ["AB", "CD", "E.F.", "GH"]
    table, notes = read_marking_and_notes(write([*others, name, name]))
    assert group_rows(table).tolist() == [0, 1, 2, 3, 4, 4]
    assert any(repr(name) in note and " 2" in note for note in notes)


def test_unknown_with_a_number_is_a_patient(write):
    names = ["unknown_1", "unknown_2", "anonymous 17", "unknown_1"]
    table, notes = read_marking_and_notes(write(names))
    assert group_rows(table).tolist() == [0, 1, 2, 0] and notes == []


def patients_of(word: str, rows: int, others: int = 60) -> list[str]:
    """`rows` photographs of a word, and those of patients who have two each."""
    return [word] * rows + [f"P_{row // 2 + 1}" for row in range(others)]


@pytest.mark.parametrize(
    "word", ["klinik", "dept of skin", "P_0", "P_000", "P_999", "zzz", "ungewiss", "?a"]
)
def test_a_word_that_nobody_listed_with_a_large_share_is_asked_about(word, write):
    path = write(patients_of(word, 25))
    with pytest.raises(ValueError) as raised:
        read_marking(path)
    for fact in (str(path), "25 of 85", repr(word), "'P_1'"):
        assert fact in str(raised.value)


@pytest.mark.parametrize("word, rows", [("klinik", 15), ("klinik", 2)])
def test_a_word_that_nobody_listed_with_few_photographs_is_told(word, rows, write):
    table, notes = read_marking_and_notes(write(patients_of(word, rows)))
    assert (table["patient_id"] == word).sum() == rows
    assert len(notes) == 1 and repr(word) in notes[0] and f" {rows}" in notes[0]


def test_a_patient_of_the_usual_form_with_a_large_share_is_told(write):
    table, notes = read_marking_and_notes(write(patients_of("P_77", 25)))
    assert (group_rows(table)[:25] == 0).all()
    assert len(notes) == 1 and "'P_77' 25" in notes[0] and "85" in notes[0]


@pytest.mark.parametrize("rows, others", [(20, 60), (25, 300)])
def test_a_patient_of_some_photographs_is_not_told(rows, others, write):
    assert read_marking_and_notes(write(patients_of("P_777", rows, others)))[1] == []


def test_a_patient_of_two_sources_or_sexes_is_told(tmp_path):
    path = tmp_path / "marking.csv"
    rows = "1,a,0,S,male\n1,b,0,T,male\n2,c,0,S,male\n2,d,0,S,female\n3,e,1,T,\n3,f,0,T,male\n"
    path.write_text("patient_id,image_id,target,source,sex\n" + rows)
    table, notes = read_marking_and_notes(path)
    assert group_rows(table).tolist() == [0, 0, 1, 1, 2, 2]
    assert len(notes) == 2
    assert all(fact in notes[0] for fact in ("1 patient_ids", "'1'", "S and T"))
    assert all(fact in notes[1] for fact in ("1 patient_ids", "'2'", "sex"))


# photographs


@pytest.mark.parametrize(
    "written",
    ["ISIC_7.jpg", "ISIC_7.JPEG", "ISIC_7.jpg.png", "train/ISIC_7", "../a b/ISIC_7.tif"]
    + ["C:\\me\\ISIC_7.jpg", "/content/ISIC_7.JPG", " ISIC_7 ", "ISIC\uff3f\uff17", "ISIC_\u200b7"],
)
def test_an_image_id_is_found_in_what_names_the_file(written, tmp_path):
    path = tmp_path / "marking.csv"
    path.write_text(f"{HEADER}p,{written},0,S\n", encoding="utf-8")
    assert read_marking(path)["image_id"].tolist() == ["ISIC_7"]


def test_image_ids_that_differ_in_a_digit_are_different_photographs():
    ids = ["ISIC_12", "ISIC_012", "ISIC_0000012", "ISIC_0000021", "12", "0012", "ISIC_1-2"]
    ids += [f"{name}_downsampled" for name in ids]
    table = pd.DataFrame({"image_id": ids, "patient_id": None})
    assert group_rows(table).tolist() == 2 * list(range(7))


def test_image_ids_that_differ_in_capitals_and_signs_are_of_one_group():
    ids = ["ISIC_12", "ISIC-12", "isic_13", "ISIC_13_downsampled", "ISIC_12_downsampled"]
    table = pd.DataFrame({"image_id": ids, "patient_id": None})
    assert group_rows(table).tolist() == [0, 0, 1, 1, 0]


@pytest.mark.parametrize(
    "stems, expected",
    [
        (["X_1", "x_1"], {"X_1": "X_1"}),  # its own name comes first
        (["x_1", "x_2"], {"X_1": "x_1"}),
        (["x_1", "x-1"], {}),  # it may be either
        (["X_0001"], {"X_1": "X_0001"}),
        (["X_0001", "X_01"], {}),
        (["X_10", "X_2"], {}),
    ],
)
def test_a_file_is_found_under_the_only_other_spelling(stems, expected):
    assert identity.match_files(["X_1"], stems) == expected


def test_one_file_is_not_given_to_two_photographs():
    assert identity.match_files(["X_1", "X-1"], ["x_1"]) == {}
    assert identity.match_files(["X_1", "X_01"], ["X_1"]) == {"X_1": "X_1"}


def test_sums_propose_copies_and_bytes_decide(tmp_path):
    """Two files of one CRC-32 that are not equal, and three that are."""
    contents = {"a": b"plumless", "b": b"buckeroo", "c": b"same", "d": b"same", "e": b"same"}
    assert zlib.crc32(contents["a"]) == zlib.crc32(contents["b"])
    for name, content in contents.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
    names = {name: f"{name}.jpg" for name in contents}
    sums = {f"{name}.jpg": f"{zlib.crc32(content):08x}" for name, content in contents.items()}
    assert identity.find_copies(names, sums, tmp_path) == [["c", "d", "e"]]
    del sums["d.jpg"]  # one that cannot be used has no sum
    assert identity.find_copies(names, sums, tmp_path) == [["c", "e"]]


def test_copies_link_their_patients(photographs, capsys):
    group = make_split({**photographs, "copies": [["X_0", "X_10", "X_38"]]})
    group = group.set_index("image_id")["group"]
    assert group["X_0"] == group["X_1"] == group["X_10"] == group["X_38"] != group["X_2"]
    assert "2 photographs" in capsys.readouterr().out
