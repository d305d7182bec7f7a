"""Who is the same: patients and photographs under several spellings, words for nobody, copies.

A patient on two sides of a split is what this series exists to prevent, and a second spelling is
all that it takes. So a patient's spellings are linked even where they may be two people's: a group
too many costs nothing, a person on two sides spoils every figure. What was linked is told, so that
a false link is seen. Photographs are told apart more strictly: ids of ISIC differ in digits alone.
"""

import functools
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from pathlib import Path

import pandas as pd

from helpers.photographs.reading import ENDINGS

# capitals of Cyrillic and Greek that look like Latin ones: keyboards in two alphabets mix them
LOOK_ALIKE = str.maketrans("АВЕКМНОРСТУХІЅЈΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEKMHOPCTYXISJABEZHIKMNOPTYX")
ROUNDED = re.compile(r"\d\.\d+E\+\d\d", re.IGNORECASE)  # a spreadsheet's way with long numbers
LARGE = 0.1  # share of all photographs that no patient is expected to have
MANY = 20  # photographs, below which a share says nothing

# what stands in a column of patients where nobody is known, in small letters and without signs
WORDS = """
unknown, unk, unknwn, not known, na, n a, not available, not applicable, nan, nat, null, none, nil
missing, miss, not recorded, not specified, not given, not reported, not provided, not stated
not identified, not assigned, no data, no id, no patient, no patient id, no value, no name, noname
nobody, no one, unspecified, undefined, undisclosed, unidentified, unassigned, unnamed, unavailable
unrecorded, anonymous, anon, anonym, anonymised, anonymized, deidentified, de identified, redacted
removed, deleted, withheld, hidden, confidential, masked, blank, empty, void, dummy, placeholder
default, tbd, tba, tbc, todo, not a number, n d, nd, n k, n r, n s
unbekannt, unbek, nicht bekannt, nicht verfügbar, nicht erfasst, keine angabe, k a, ka, fehlt
fehlend, ohne, ohne angabe, leer, niemand, anonymisiert
inconnu, inconnue, non connu, non disponible, non renseigné, non renseigne, non précisé, manquant
aucun, aucune, anonyme, vide
desconocido, desconocida, no disponible, no consta, no informado, sin datos, sin dato, sin id, s d
ninguno, ninguna, faltante, vacío, anónimo, anonimo
desconhecido, desconhecida, não informado, nao informado, não disponível, nenhum, ausente, ignorado
sconosciuto, sconosciuta, ignoto, non noto, non disponibile, mancante, nessuno
onbekend, geen, niet bekend, ontbreekt, okänd, okänt, saknas, ukjent, ukendt, mangler, tuntematon
puuttuu, nieznany, nieznana, brak, brak danych, neznámý, neznámá, neuvedeno, neznámy, neznan
nepoznat, nepoznato, ismeretlen, necunoscut, bilinmiyor, bilinmeyen, yok
неизвестно, неизвестен, неизвестный, неизвестна, нет данных, нет, невідомо, невідомий
άγνωστο, άγνωστος, không rõ, không biết, tidak diketahui
未知, 不明, 不详, 不詳, 无, 無, なし, 미상, 없음, غير معروف, مجهول, نامعلوم, לא ידוע, अज्ञात, ไม่ทราบ
"""
NOBODY = {word.strip() for word in re.split("[,\n]", WORDS) if word.strip()}
# words that say what the column holds, and not who
COLUMN = {"patient", "patients", "pat", "pid", "id", "ids", "subject", "person", "case", "lesion"}


def words(name: str) -> list[str]:
    """The words and numbers of a name, in small letters; what stands between them is left out.

    >>> words("IP_0012"), words("Ada  L."), words("12-3b")
    (['ip', '0012'], ['ada', 'l'], ['12', '3', 'b'])
    """
    text = name.casefold()
    if not text.isascii():
        text = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
        return re.findall(r"\d+|[^\d\s]+", text)
    return re.findall(r"\d+|[a-z]+", text)


def patient_key(name: str) -> str:
    """What all spellings of one patient's or lesion's id have in common.

    Capitals, the signs and blanks between its parts, zeros before a number, the `.0` of a number
    that was stored as a float, and letters of another alphabet that look like Latin ones are no
    matter. An id without letters and digits is itself.

    >>> {patient_key(name) for name in ["IP_0012", "ip 12", "IP-12"]}
    {'ip 12'}
    >>> {patient_key(name) for name in ["12", "12.0", "0012"]}, patient_key("1-2")
    ({'12'}, '1 2')
    """
    return " ".join(without_zeros(word) for word in words(as_number(plain(name)))) or name


@functools.lru_cache(2**17)  # of a table's ids, which several ask for
def photograph_key(name: str) -> str:
    """What all spellings of one image id have in common: as of a patient's, but with every zero.

    >>> photograph_key("isic-0012") == photograph_key("ISIC_0012") != photograph_key("ISIC_12")
    True
    """
    return " ".join(words(plain(name))) or name


def plain(name: str) -> str:
    """A name with Latin letters in place of capitals that look like them; capitals are no matter.

    >>> plain("p_1") == "p_1", plain("\u0440_1")
    (True, 'P_1')
    """
    return name if name.isascii() else name.upper().translate(LOOK_ALIKE)


def as_number(name: str) -> str:
    """`12.0`, or a long number as a spreadsheet rounds it, as the whole number that it is."""
    if ROUNDED.fullmatch(name):
        return str(int(Decimal(name)))
    return re.sub(r"\A(\d+)[.,]0+\Z", r"\1", name)


def without_zeros(word: str) -> str:
    """A number without the zeros before it, in the digits 0 to 9; another word as it is."""
    if not word.isdecimal():
        return word
    if not word.isascii():
        word = "".join(str(unicodedata.decimal(digit)) for digit in word)
    return word.lstrip("0") or "0"


def image_id(name: str) -> str:
    r"""The image id in what names a photograph: without a folder, its ending, or a float's `.0`.

    >>> image_id("train/ISIC_1.jpg"), image_id("C:\\data\\ISIC_1.JPEG"), image_id("12.0")
    ('ISIC_1', 'ISIC_1', '12')
    """
    if not re.search(r"[/\\.]", name):
        return name
    stem, ending = os.path.splitext(re.split(r"[/\\]", name)[-1].strip())
    while ending.lower() in ENDINGS:
        stem, ending = os.path.splitext(stem)
    return re.sub(r"\A(\d+)\.0+\Z", r"\1", stem + ending) or name


def match_names(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Which of `known` each name means: itself, else the only one that is spelled otherwise.

    Capitals and signs come first, then zeros before numbers. A name that may mean two is left out,
    as one that means none.

    >>> match_names(["x-4", "X_07", "Y"], ["X_4", "X_7", "X_07"])
    {'X_07': 'X_07', 'x-4': 'X_4'}
    """
    names = list(dict.fromkeys(names))
    known = set(known)
    matched = {name: name for name in names if name in known}
    for key in (photograph_key, patient_key):
        rest = [name for name in names if name not in matched]
        if rest:
            by_key = spellings(known, key)
            for name in rest:
                meant = by_key.get(key(name), [])
                if len(meant) == 1:
                    matched[name] = meant[0]
    return matched


def match_files(image_ids: Iterable[str], stems: Iterable[str]) -> dict[str, str]:
    """The name, without its ending, of the file of each image id that has one.

    Its own name comes first. A file that nobody has by name is of the one id that it spells in
    another way, if there is one only.
    """
    wanted = set(image_ids)
    stems = set(stems)
    meant = {name: name for name in wanted & stems}
    others = match_names(wanted - stems, stems - wanted) if wanted - stems else {}
    taken = Counter(others.values())
    return meant | {name: stem for name, stem in others.items() if taken[stem] == 1}


def spellings(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """The different names of each key, in their order."""
    by_key: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_key.setdefault(key(name), []).append(name)
    return by_key


def how_they_differ(names: Collection[str]) -> str:
    """In what the spellings of one id differ, for the reader to judge: the least that unites them.

    >>> how_they_differ(["IP_1", "ip_1"]), how_they_differ(["7", "007"])
    ('capitals', 'zeros or .0 of numbers')
    """
    if len({name.casefold() for name in names}) == 1:
        return "capitals"
    if len({photograph_key(name) for name in names}) == 1:
        return "signs, blanks or alphabets"
    return "zeros or .0 of numbers"


def nobodies(names: Iterable[str]) -> set[str]:
    """Those of a table's patient ids that mean that the patient is not known.

    Those that `may_mean_nobody`, unless most others are of the same short form, numbers alone or
    initials: then 0 or 999 may be somebody's number, and NA somebody's initials.

    >>> sorted(nobodies(["IP_1", "IP_2", "IP_nan", "n/a", "0"])), nobodies(["0", "1", "2"])
    (['0', 'IP_nan', 'n/a'], set())
    """
    names = list(dict.fromkeys(names))
    parts = [words(name) for name in names]
    prefixes = {own[0] for own in parts if [word.isdecimal() for word in own[:2]] == [False, True]}
    candidates = {name for name in names if may_mean_nobody(name, prefixes)}
    forms = [form(name) for name in names if name not in candidates]
    usual = {short for short in ("number", "initials") if forms.count(short) > len(forms) / 2}
    return {name for name in candidates if form(name) not in usual}


def may_mean_nobody(name: str, prefixes: Collection[str] = ()) -> bool:
    """Whether a patient id reads as one of nobody.

    It is a word of NOBODY, also beside one of COLUMN (`patient unknown`) or behind one of
    `prefixes` (`IP_nan`, `IP_`); signs alone; x's alone; a spreadsheet's error (`#REF!`); -1, -9,
    -99 and so on; 0, 99, 999 and so on.
    """
    parts = words(name)
    if re.fullmatch(r"-(1|9+)([.,]0+)?|#.*[!?]|0+|99+", as_number(name)):
        return True
    rest = [part for part in parts if part not in COLUMN] or parts
    if parts and parts[0] in prefixes and (len(parts) > 1 or not name[-1].isalnum()):
        rest = parts[1:]
    return any(
        not own or " ".join(own) in NOBODY or set("".join(own)) == {"x"} for own in (parts, rest)
    )


def form(name: str) -> str:
    """The form of an id: "number" alone, "initials" (up to three letters), or "other"."""
    parts = words(name)
    text = "".join(parts)
    if as_number(name).isdecimal():
        return "number"
    return "initials" if 0 < len(text) <= 3 and text.isalpha() else "other"


def unify_patients(
    written: pd.Series, tidied: pd.Series, where: str
) -> tuple[pd.Series, list[str]]:
    """The patient ids of a table with one spelling for each patient, the first, and NaN for nobody.

    Args:
        written: the cells of one of `table.WHO` as they are in the file, N rows.
        tidied: the same without what nobody sees, NaN where they are empty.
        where: the file.

    Returns:
        The ids [N], and a line on each thing that was done or looks wrong.

    Raises:
        ValueError: an id looks like a word for "not known" that NOBODY lacks, see `refuse_word`.
    """
    notes = []
    missing = tidied.isin(nobodies(tidied.dropna()))
    if missing.any():
        counts = tidied[missing].value_counts()
        examples = ", ".join(f"{name!r} {rows} times" for name, rows in counts[:4].items())
        notes.append(
            f"{missing.sum()} photographs have a {tidied.name} that says that nobody is known "
            f"({examples}): it is taken as empty, each is a patient of its own"
        )
    known = tidied.mask(missing)
    by_key = spellings(known.dropna(), patient_key)
    first = {name: names[0] for names in by_key.values() for name in names}
    notes += tell_spellings([names for names in by_key.values() if len(names) > 1], tidied.name)
    several = written.groupby(known).nunique()
    several = several[several > 1]
    if len(several):
        notes.append(
            f"{tidied.name}: {len(several)} are written in several ways that differ in what nobody "
            "sees (blanks, kinds of dashes, forms of a character) and are taken as one each, the "
            f"first {several.index[0]!r}"
        )
    patients = known.map(first)
    refuse_word(patients, where)
    return patients, notes + doubtful_patients(patients)


def tell_spellings(united: list[list[str]], column: str) -> list[str]:
    """A line for each way in which the spellings of ids differ that were taken as one."""
    by_way: dict[str, list[list[str]]] = {}
    for names in united:
        by_way.setdefault(how_they_differ(names), []).append(names)
    return [
        f"{column}: {len(ids)} are written in several ways that differ in {way} and are taken as "
        f"one each, the first {' = '.join(map(repr, ids[0][:3]))}"
        for way, ids in by_way.items()
    ]


def refuse_word(patients: pd.Series, where: str) -> None:
    """Refuse an id that holds a large share of the photographs and is not formed as the others are.

    A word that NOBODY lacks would be one patient: none of its photographs would leak, but a whole
    part of the table would be on one side. It cannot be taken as empty without asking, since a real
    patient's photographs would then be on two sides. Where its form tells it from the others (no
    number where they have one, or 0 or 9 alone), and it holds more than LARGE, MANY and three times
    the usual, the reader is asked, who can answer either way. A large id of the usual form is only
    told, in `doubtful_patients`: a patient with so many photographs may exist, and there would be
    nothing that the reader could change.

    Raises:
        ValueError: there is such an id.
    """
    counts = patients.value_counts()
    without = without_number(counts.index)
    for name, rows in large_ids(patients).items():
        digits = set(without_zeros("".join(filter(str.isdecimal, name))))
        odd = name in without or digits in ({"0"}, {"9"})
        if odd and rows > 3 * counts.median():
            raise ValueError(
                f"{where}: {rows} of {len(patients)} photographs have the {patients.name} "
                f"{name!r}, which is not as the others are. If it says that nobody is known, leave "
                "these cells empty; if it is one patient, give it an id like the others', such as "
                f"{counts.index[counts.index != name][0]!r}"
            )


def large_ids(patients: pd.Series) -> pd.Series:
    """How many photographs those ids have that hold more than LARGE of all, and more than MANY."""
    counts = patients.value_counts()
    return counts[(counts > MANY) & (counts > LARGE * len(patients))]


def without_number(names: Collection[str]) -> set[str]:
    """The ids that have no digit, where more than half of all have one."""
    without = {name for name in names if not any(map(str.isdecimal, name))}
    return without if len(without) < len(names) / 2 else set()


def doubtful_patients(patients: pd.Series) -> list[str]:
    """A line on each kind of id that may not be one patient's."""
    notes = []
    counts = patients.value_counts()
    repeated = counts[counts > 1].index
    without = without_number(counts.index)
    odd = [name for name in repeated if name in without or may_mean_nobody(name)]
    if odd:
        notes.append(
            f"{len(odd)} {patients.name}s of several photographs may be words or numbers for "
            f"nobody, the first {odd[0]!r} with {counts[odd[0]]}: each stays together as one "
            "patient's; where nobody is known, leave the cell empty"
        )
    large = large_ids(patients)
    large = large[[name for name in large.index if name not in odd]]
    if len(large):
        notes.append(
            f"{len(large)} {patients.name}s hold more than {LARGE:.0%} of the {len(patients)} "
            f"photographs each, the largest {large.index[0]!r} {large.iloc[0]}: each stays on one "
            "side, whole. Is it one patient? Where nobody is known, leave the cell empty"
        )
    rounded = [name for name in counts.index if ROUNDED.fullmatch(name)]
    if rounded:
        notes.append(
            f"{len(rounded)} {patients.name}s are rounded numbers, the first {rounded[0]!r}: a "
            "spreadsheet has made several patients one, perhaps; export the column as text"
        )
    return notes


def find_copies(names: Mapping[str, str], sums: Mapping[str, str], folder: Path) -> list[list[str]]:
    """The photographs that stand several times, byte for byte: a list of image ids for each.

    A CRC-32 proposes them, and the bytes decide: of 60,000 files two may share a sum by chance.

    Args:
        names: the file of each photograph, by image id.
        sums: the CRC-32 of each file, by its name; a file without is left out.
        folder: of the files.
    """
    by_sum: dict[str, list[str]] = {}
    for image, name in names.items():
        if name in sums:
            by_sum.setdefault(sums[name], []).append(image)
    copies = []
    for images in by_sum.values():
        if len(images) > 1:
            by_content: dict[bytes, list[str]] = {}
            for image in images:
                content = (folder / names[image]).read_bytes()
                by_content.setdefault(hashlib.sha256(content).digest(), []).append(image)
            copies += [same for same in by_content.values() if len(same) > 1]
    return copies
