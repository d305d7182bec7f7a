"""Random damage to photographs and tables: each case ends in a ValueError of ours, or in pixels or
a table.

The cases run in a child process that watches each: a crash or a hang is reported with the case's
number, and `python tests/faults/test_fuzz.py SEED FIRST COUNT FOLDER` runs it alone.
ATTENTION_FUZZ_SEED chooses another seed. What no reader can know is counted, too: changed bytes
that still decode. A photograph that was unpacked is caught by the checksum in the archive's list;
of a folder used in place nobody knows what the bytes were before 01 read them.
"""

import faulthandler
import os
import re
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent
SEED = int(os.environ.get("ATTENTION_FUZZ_SEED") or 20)
LIMIT = 600  # seconds after which a case hangs, however slow the machine; most take a hundredth
KINDS = ("flip", "cut", "insert", "delete", "duplicate", "zero", "header", "two of them")


def damage(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """The bytes, damaged in one way."""
    if kind == "two of them":
        one, two = rng.choice(KINDS[:-1], 2)
        return damage(damage(content, str(one), rng), str(two), rng)
    changed, end = (
        bytearray(content),
        max(1, min(len(content), 700) if kind == "header" else len(content)),
    )
    at, length = (
        int(rng.integers(end)),
        int(rng.integers(1, 1 + min(2000, max(1, len(content) // 8)))),
    )
    if kind in ("flip", "header"):
        for place in rng.integers(end, size=rng.integers(1, 9)):
            changed[place : place + 1] = rng.bytes(1)
    elif kind == "cut":
        del changed[at:]
    elif kind == "insert":
        changed[at:at] = rng.bytes(length)
    elif kind == "delete":
        del changed[at : at + length]
    elif kind == "duplicate":
        changed[at:at] = changed[at : at + length]
    elif kind == "zero":
        changed[at : at + length] = bytes(len(changed[at : at + length]))
    return bytes(changed)


def damage_text(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """A table damaged as hands and spreadsheets do it, a line or cell at a time; every second one
    as `damage` does.
    """
    if rng.random() < 0.5:
        return damage(content, kind, rng)
    lines = content.split(b"\n")
    at = int(rng.integers(len(lines) - 1))
    cell, cells = (
        rng.choice([b"", b"NA", b'"', b"=1+1", b"0.5", b"\xe9", b"a,b", b"\r"]),
        lines[at].split(b","),
    )
    if kind in ("flip", "header", "insert"):
        cells[rng.integers(len(cells))] = bytes(cell)
        lines[at] = b",".join(cells)
    elif kind == "delete":
        lines[at] = b",".join(cells[:-1])
    elif kind == "duplicate":
        lines.insert(at, lines[at])
    elif kind == "zero":
        lines[at] = b""
    else:
        lines = lines[: at + 1]
    return b"\n".join(lines)


def sources(folder: Path) -> tuple[list[bytes], bytes, str]:
    """Photographs to damage, a table, and what the photographs are: real where there are any, else
    drawn.
    """
    from helpers.photographs.sample import make_sample

    data = (
        Path(os.environ.get("ATTENTION_TEST_DATA") or PROJECT.parent / "shared" / "data")
        / "melanoma-512.zip"
    )
    make_sample(folder / "set", count=40, side=32 if data.is_file() else 96)
    table = (folder / "set" / "marking.csv").read_bytes()
    if not data.is_file():
        return (
            [path.read_bytes() for path in sorted(folder.rglob("SAMPLE*.jpg"))],
            table,
            "drawn (no real ones here)",
        )
    with zipfile.ZipFile(data) as zipped:
        return (
            [zipped.read(name) for name in sorted(zipped.namelist())[:60] if name.endswith(".jpg")],
            table,
            "real",
        )


def photograph_case(content: bytes, changed: bytes, kind: str, path: Path) -> str:
    """How `load` and `read_photograph` end: "refused" or "decoded"; anything but that and
    ValueError is raised.
    """

    from helpers.photographs import reading
    from helpers.pictures import explorer

    path.write_bytes(changed)
    ended = []
    for read in (
        lambda: reading.read_photograph(path, at_least=1),
        lambda: reading.read_photograph(path),
        lambda: explorer.own_photograph(path),
    ):
        try:
            pixels = read()
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, (
                pixels.shape
            )
            ended.append("decoded")
        except ValueError as error:
            assert path.name in str(error), error
            ended.append("refused")
    assert ended[0] == ended[1], f"01 says {ended[0]}, 02 {ended[1]}"
    if changed == content:
        return "unchanged"
    assert kind != "cut" or ended == 3 * ["refused"], f"cut to {len(changed)} bytes and {ended}"
    with pytest.raises(ValueError, match="CRC-32"):
        reading.read_photograph(path, at_least=1, crc=zlib.crc32(content))
    return ended[0]


def table_case(changed: bytes, path: Path) -> str:
    """How the table's reader and the split end: "refused", "read" or "split"."""

    from helpers.photographs.split import make_split
    from helpers.photographs.table import read_marking

    path.write_bytes(changed)
    try:
        table = read_marking(path)
    except ValueError as error:
        assert path.name in str(error), error
        return "refused"
    assert table["target"].isin([0, 1]).all() and table["image_id"].is_unique and len(table)
    assert all(re.fullmatch(r"\w[\w-]*", name) for name in table["image_id"])
    assert not table["source"].str.match(r"[=+@\t\r-]").any()
    try:
        split = make_split({"csv": str(path), "ids": "", "masks_folder": ""})
    except ValueError:
        return "read"
    assert len(split) == len(table) and not (split.groupby("group")["split"].nunique() > 1).any()
    return "split"


def run_cases(seed: int, first: int, count: int, folder: Path) -> None:
    """In the child: a line when a case begins, a line how it ended."""
    sys.path.insert(0, str(PROJECT))
    warnings.simplefilter("ignore")  # Pillow's, of odd files
    faulthandler.enable()
    photographs, table, what = sources(folder)
    print("photographs", what, flush=True)
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, number])
        kind = KINDS[number // 4 % len(KINDS)]
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        if number % 4 == 3:
            print("case", number, "table", kind, flush=True)
            ended = table_case(damage_text(table, kind, rng), folder / "marking.csv")
        else:
            print("case", number, "photograph", kind, flush=True)
            content = photographs[rng.integers(len(photographs))]
            ended = photograph_case(content, damage(content, kind, rng), kind, folder / "x.jpg")
        print("ended", ended, flush=True)
    faulthandler.cancel_dump_traceback_later()


def fuzz(first: int, count: int, folder: Path) -> Counter:
    """Run cases in a child; how many of each kind ended how. Fails with the number of a case that
    did not end well.
    """
    done = subprocess.run(
        [sys.executable, __file__, *map(str, (SEED, first, count, folder))],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert not done.returncode, (
        f"seed {SEED}, case {lines[-1][1] if lines else '?'}:\n{done.stderr[-3000:]}"
    )
    begun = [rest.split(maxsplit=2)[1] for word, rest in lines if word == "case"]
    ended = [rest for word, rest in lines if word == "ended"]
    assert len(begun) == len(ended) == count
    found = Counter(zip(begun, ended, strict=True))
    photographs = found["photograph", "decoded"] + found["photograph", "refused"]
    print(
        f"\nseed {SEED}, cases {first} to {first + count - 1}, photographs {lines[0][1]}: "
        + ", ".join(f"{' '.join(key)} {number}" for key, number in sorted(found.items()))
        + f"; caught by their checksum: {photographs}"
    )
    return found


def test_two_hundred_damaged_files(tmp_path):
    found = fuzz(0, 200, tmp_path)
    assert min(found["photograph", "refused"], found["photograph", "decoded"]) > 20, "of both kinds"
    assert min(found["table", "refused"], found["table", "split"]) > 4


@pytest.mark.long
def test_two_thousand_damaged_files(tmp_path):
    found = fuzz(200, 2000, tmp_path)
    assert found["photograph", "decoded"] > 200, (
        "so many changes a folder used in place would not show"
    )


@pytest.mark.parametrize(
    "fault",
    [
        "import os; os.abort()",
        *(
            pytest.param(fault, marks=pytest.mark.long)
            for fault in ("while True: pass", "raise KeyError('x')")
        ),
    ],
)
def test_a_crash_a_hang_and_a_foreign_error_are_reported_with_the_case(
    fault, tmp_path, monkeypatch
):
    """The watch itself: a child whose reader aborts, hangs or raises what is not ours."""
    child = tmp_path / "child.py"
    child.write_text(
        f"import sys; sys.path[:0] = [{str(PROJECT)!r}, {str(Path(__file__).parent)!r}]\n"
        "import test_fuzz\nfrom helpers.photographs import reading\ntest_fuzz.LIMIT = 1\n"
        f"def read(*arguments, **named):\n    {fault}\nreading.read_photograph = read\n"
        "test_fuzz.run_cases(*map(int, sys.argv[1:4]), test_fuzz.Path(sys.argv[4]))\n"
    )
    monkeypatch.setitem(globals(), "__file__", str(child))
    with pytest.raises(AssertionError, match=f"seed {SEED}, case 8 photograph"):
        fuzz(8, 2, tmp_path)


if __name__ == "__main__":
    run_cases(*map(int, sys.argv[1:4]), Path(sys.argv[4]))
