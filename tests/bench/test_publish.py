"""bench/publish.py and bench/record.py: pages say what was measured, and on what it rests."""

import re

import nbformat
import pandas as pd
import pytest
import torch

from tests.bench.conftest import record
from tests.conftest import PROJECT, commit_all

import publish  # isort: skip

CPU = torch.device("cpu")


def leave(folder, **figures) -> None:
    """Results of `sample_teaches.py`, with these AUCs within source."""
    within = {}
    for name, value in figures.items():
        within[name.replace("_", " ")] = {"value": value, "low": value - 0.1, "high": value + 0.1}
    record.write(
        "sample_teaches",
        {"within": within},
        seeds=[0, 1],
        data=record.photographs_of("drawn sample", ["b", "a"], 1),
        weights="none",
        device=CPU,
        folder=folder,
        tables={"seeds": pd.DataFrame({"seed": [0, 1], "auc": [0.75, 0.8123456789]})},
    )


def test_pages_say_what_was_measured():
    """As the repository stands: `make publish` would change no page."""
    for path in publish.pages():
        text = path.read_text(encoding="utf-8")
        assert publish.filled_page(path) == text, f"{path.name} differs: run `make publish`"


def read_page(path) -> str:
    """A page's text, or a notebook's prose."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_every_block_stands_on_a_page_and_every_page_is_looked_at():
    texts = [read_page(path) for path in publish.pages()]
    named = {match["name"] for text in texts for match in publish.BLOCK.finditer(text)}
    assert named == set(publish.BLOCKS)
    for path in PROJECT.rglob("*.md"):
        inside = not any(part.startswith((".", "_")) or part == "runs" for part in path.parts)
        if inside and "<!-- results:" in path.read_text(encoding="utf-8"):
            assert path in publish.pages()


def test_a_block_is_filled_and_filled_again_with_other_figures(tmp_path):
    page = "Before.\n\n<!-- results: sample-teaches -->\nold .123\n<!-- /results -->\nAfter 0.5.\n"
    leave(tmp_path, with_lesions=0.8451, painted_over=0.48)
    first = publish.filled(page, tmp_path)
    assert ".845 (.745 to .945)" in first and ".480 (.380 to .580)" in first
    assert "old" not in first
    assert first.startswith("Before.\n") and first.endswith("<!-- /results -->\nAfter 0.5.\n")
    assert publish.filled(first, tmp_path) == first
    leave(tmp_path, with_lesions=0.7, painted_over=0.48)
    assert ".700 (" in publish.filled(first, tmp_path)


def test_what_was_not_measured_is_said_to_be_so_with_its_command(tmp_path):
    page = "<!-- results: real-scores -->\n| .791 |\n<!-- /results -->\n"
    text = publish.filled(page, tmp_path)
    assert ".791" not in text and "python bench/real_photographs.py --dataset" in text


def test_an_unknown_block_is_named(tmp_path):
    with pytest.raises(SystemExit, match="no-such-block"):
        publish.filled("<!-- results: no-such-block -->\n<!-- /results -->", tmp_path)


def test_check_says_what_differs_and_writes_nothing(tmp_path, monkeypatch, capsys):
    page = tmp_path / "README.md"
    page.write_text("<!-- results: sample-teaches -->\n.999\n<!-- /results -->\n")
    monkeypatch.setattr(publish, "PROJECT", tmp_path)
    assert publish.publish(check=True) == 1
    assert "-.999" in capsys.readouterr().out and ".999" in page.read_text()
    assert publish.publish(check=False) == 1
    assert publish.publish(check=True) == 0


def test_only_blocks_hold_three_decimals():
    """A figure typed by hand beside the blocks would look like this."""
    for path in publish.pages():
        if path.suffix == ".ipynb":  # a notebook speaks of its own outputs, too
            continue
        text = publish.BLOCK.sub("", path.read_text(encoding="utf-8"))
        typed = re.findall(r"(?<![\d.])0?\.\d{3}(?!\d)", text)
        assert typed == [], f"{path.name} holds {typed}"


def test_results_say_what_they_rest_on(tmp_path):
    leave(tmp_path, with_lesions=0.8, painted_over=0.5)
    result = record.read("sample_teaches", tmp_path)
    assert result["commit"] == record.COMMIT
    assert set(result["machine"]) == {
        *("processor", "cores", "instructions", "torch", "device", "precision"),
    }
    assert result["machine"]["torch"] == torch.__version__
    assert set(result["machine"]["instructions"]) <= set(record.FLAGS)
    assert result["seeds"] == [0, 1] and re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert result["tables"]["sample_teaches-seeds.csv"]["auc"].tolist() == [0.75, 0.812346]
    # order of the ids says nothing, the ids do
    assert record.photographs_of("x", ["a", "b"], 1)["ids"] == result["data"]["ids"]
    assert record.photographs_of("x", ["a", "c"], 1)["ids"] != result["data"]["ids"]
    assert record.read("speed", tmp_path) is None


def test_results_name_the_commit_with_which_their_program_started(tmp_path, monkeypatch):
    """In a checkout that holds earlier results, which `write` replaces."""
    monkeypatch.setattr(record.workspace, "PROJECT", tmp_path)
    leave(tmp_path, with_lesions=0.7, painted_over=0.5)
    commit_all(tmp_path)
    started = record.commit()
    assert "dirty" not in started
    monkeypatch.setattr(record, "COMMIT", started)
    leave(tmp_path, with_lesions=0.8, painted_over=0.5)
    assert record.read("sample_teaches", tmp_path)["commit"] == started
    assert record.commit() == f"{started}-dirty"


def test_a_parameter_that_a_program_decides_is_refused():
    with pytest.raises(ValueError, match="-p attention: this program decides that itself"):
        record.parameters_of([("attention", "sigmoid")], decided={"attention"})
    assert record.parameters_of([("epochs", "3")], decided={"attention"}).epochs == 3


def test_the_precision_of_a_run_is_recorded():
    assert record.machine(CPU, "fp32")["precision"] == "float32"


def test_weights_are_known_by_their_bytes(tmp_path):
    path = tmp_path / "vgg16_bn-6c64b313.pth"  # torchvision's name, and not its bytes
    path.write_bytes(b"123456789")  # whose CRC-32 every table of CRCs gives
    expected = {"name": path.name, "crc32": "cbf43926", "stand_in": True}
    assert record.weights_of(str(path)) == expected


def test_a_command_names_files_and_not_where_they_lie(tmp_path, monkeypatch):
    (tmp_path / "masks.zip").touch()
    words = [
        str(PROJECT / "bench" / "x.py"),
        "--masks",
        str(tmp_path / "masks.zip"),
        "no attention",
    ]
    monkeypatch.setattr("sys.argv", words)
    assert record.command() == "python bench/x.py --masks masks.zip 'no attention'"


def test_counts_of_the_photographs_are_those_of_the_table(real_data):
    """data/README.md: the Kaggle table by source, and the published list of ids."""
    text = (PROJECT / "data" / "README.md").read_text(encoding="utf-8")
    table = pd.read_csv(real_data / "marking-full.csv.gz")
    for source, rows in table.groupby("source"):
        benign, melanoma = (rows["target"] == 0).sum(), (rows["target"] == 1).sum()
        line = f"| {benign:,} | {melanoma:,} | {melanoma / len(rows):.1%} |"
        assert any(line in cells for cells in text.splitlines() if f"| {source} |" in cells)
    assert f"{len(table):,} rows" in text
    ids = pd.read_csv(PROJECT / "data" / "photographs-3737.csv")["image_id"]
    listed = table[table["image_id"].isin(ids)]
    assert len(listed) == len(ids)
    by_source = listed.groupby("source")["target"].agg(["size", "sum"])
    for number in (
        len(ids),
        listed["target"].sum(),
        *by_source["size"],
        by_source["sum"]["ISIC20"],
    ):
        assert f"{number:,}" in text
