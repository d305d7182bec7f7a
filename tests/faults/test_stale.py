"""What changed on the disk or in the parameters since a file of a run was made, and what follows.

Real files: a drawn data set in a data folder that is moved, tables and photographs that are written
again, networks of two trainings in one folder. What an error says to do is then done.
"""

import ast
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import workspace
from helpers.photographs.cache import build_cache, open_cache
from helpers.photographs.sample import make_sample
from helpers.photographs.sources import find_dataset
from helpers.photographs.split import make_split, read_split, read_table
from helpers.scores.baselines import baselines
from helpers.training import batches, checkpoint
from helpers.training.control import CONTROL, common_test, load_control
from helpers.training.loop import Fitted, predict_held_out

CPU = torch.device("cpu")
READERS = {  # of dataset.json, which look at the table or the photographs again
    "02": read_table,
    "04's guesses": lambda dataset: baselines(dataset, make_split({**dataset, "sha256": ""})),
}


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")


@pytest.fixture
def data(folders) -> Path:
    """A data set of 80 photographs below the data folder."""
    folder = folders.data / "raw" / "set"
    make_sample(folder, seed=7, count=80, side=64)
    return folder


def prepare(place: Path, run: str = "run", *, image_size: int = 32, **options) -> Path:
    """What 01 and 02 do."""
    folder = workspace.run_folder(run)
    workspace.write_json(folder / "dataset.json", find_dataset(str(place), **options))
    preprocess(folder, image_size)
    return folder


def preprocess(folder: Path, image_size: int = 32, **options) -> None:
    """What 02 does."""
    dataset = workspace.read_json(folder / "dataset.json", "01_download.ipynb")
    split = make_split(dataset, **options)
    split.to_csv(folder / "split.csv", index=False)
    cache = build_cache(dataset, split, image_size=image_size)
    workspace.write_json(folder / "cache.json", cache)


def read_dataset(folder: Path) -> dict:
    return workspace.read_json(folder / "dataset.json", "01_download.ipynb")


def move(folders: SimpleNamespace, new: Path, monkeypatch) -> Path:
    """Both folders go elsewhere; the run's folder there."""
    new.mkdir()
    for name, variable in (("data", "ATTENTION_DATA"), ("runs", "ATTENTION_RUNS")):
        shutil.move(getattr(folders, name), new / name)
        monkeypatch.setenv(variable, str(new / name))
    return new / "runs" / "run"


# runs that moved


def test_a_moved_run_finds_what_it_needs_where_that_is_now(data, folders, tmp_path, monkeypatch):
    before = prepare(data)
    for name in ("dataset.json", "cache.json"):
        written = json.loads((before / name).read_text())
        written.pop("dataset", "")  # as the reader typed it
        assert str(tmp_path) not in json.dumps(written), "no place of this machine"
    _, photographs = batches.open_prepared(before, CPU)
    pixels = np.array(photographs.pixels)
    after = move(folders, tmp_path / "elsewhere", monkeypatch)
    split, photographs = batches.open_prepared(after, CPU)
    assert np.array_equal(photographs.pixels, pixels)
    dataset = read_dataset(after)
    assert Path(dataset["folder"]).is_relative_to(tmp_path / "elsewhere")
    assert len(read_table(dataset)) == len(split)
    assert build_cache(dataset, split, image_size=32)["key"] == photographs.key


@pytest.mark.parametrize("made", ["on Windows", "by an earlier edition"])
def test_places_written_otherwise_are_read(made, data):
    folder = prepare(data)
    for name in ("dataset.json", "cache.json"):
        content = json.loads((folder / name).read_text())
        for entry in workspace.PLACES:
            if content.get(entry):
                written = content[entry].replace("/", "\\")
                whole = str(workspace.data_folder() / content[entry])
                content[entry] = written if made == "on Windows" else whole
        (folder / name).write_text(json.dumps(content))
    batches.open_prepared(folder, CPU)
    dataset = read_dataset(folder)
    assert dataset["folder"] == find_dataset(str(data))["folder"]
    assert open_cache(json.loads((folder / "cache.json").read_text())["file"]).shape[1] == 36


@pytest.mark.parametrize(
    "written", ["C:\\me\\data\\raw\\set", "/home/me/data/raw/set", "raw/other"]
)
def test_a_run_without_its_data_leads_to_01_and_names_what_is_looked_for(written, data, folders):
    folder = prepare(data)
    shutil.rmtree(folders.data)
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "csv": f"{written}/marking.csv"}))
    for look in (lambda: read_table(read_dataset(folder)), lambda: open_prepared(folder)):
        with pytest.raises(FileNotFoundError, match="01_download") as error:
            look()
        assert f"{written}/marking.csv" in str(error.value)


def open_prepared(folder: Path):
    return batches.open_prepared(folder, CPU)


def test_the_way_on_after_a_move_ends_with_the_network_that_was_there(
    data, folders, tmp_path, made, fitted
):
    """The data set lay outside the data folder, whose cache is lost, too: 01 with its new place."""
    away = tmp_path / "photographs"
    shutil.move(data, away)
    folder = prepare(away)
    _, photographs = batches.open_prepared(folder, CPU)
    made_from = {
        **fitted.config["made_from"],
        "photographs": photographs.key,
        "rows": checkpoint.rows_key(read_split(folder / "split.csv")),
    }
    split = checkpoint.split_key(read_split(folder / "split.csv"))
    config = {**fitted.config, "made_from": made_from, "split": split}
    content = {"state_dict": fitted.network.state_dict(), "config": config}
    checkpoint.save(content, folder / "model.pt")
    shutil.move(away, tmp_path / "renamed")
    shutil.rmtree(folders.data)
    with pytest.raises(FileNotFoundError, match="01_download"):
        batches.open_prepared(folder, CPU)
    prepare(tmp_path / "renamed")  # as it says
    split, photographs = batches.open_prepared(folder, CPU)
    checkpoint.load_checkpoint(folder / "model.pt", CPU, split=split, photographs=photographs)


def test_a_lost_cache_alone_is_made_again_by_02(data, folders):
    folder = prepare(data)
    shutil.rmtree(folders.data / "cache")
    with pytest.raises(ValueError, match="02_preprocess"):
        batches.open_prepared(folder, CPU)
    preprocess(folder)
    batches.open_prepared(folder, CPU)


@pytest.mark.parametrize("damage", ["", '{"format": 1', "[1]", "null", "\xff"])
@pytest.mark.parametrize("name", ["dataset.json", "split.csv", "cache.json"])
def test_a_damaged_file_of_a_run_is_named_with_the_notebook_that_makes_it(name, damage, data):
    folder = prepare(data)
    (folder / name).write_bytes(damage.encode("latin-1"))
    maker = "01_download" if name == "dataset.json" else "02_preprocess"
    with pytest.raises(ValueError, match=f"{name}.*{maker}"):
        batches.open_prepared(folder, CPU)


# tables, lists, photographs and masks that changed after 01


def rewrite(table: Path, change) -> None:
    change(pd.read_csv(table, dtype=str)).to_csv(table, index=False)


CHANGES = {
    "a row more": lambda table: pd.concat([table, table.tail(1).assign(image_id="new")]),
    "a row less": lambda table: table.iloc[1:],
    "a diagnosis": lambda table: table.assign(target=["1", *table["target"][1:]]),
    "an age": lambda table: table.assign(age_approx=["99", *table["age_approx"][1:]]),
    "another order": lambda table: table.iloc[::-1],
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_table_that_changed_after_01_is_refused_until_01_reads_it(change, reader, data):
    folder = prepare(data)
    rewrite(data / "marking.csv", CHANGES[change])
    if change == "a row less":
        photograph = read_dataset(folder)["folder"]
        assert Path(photograph).is_dir()
    with pytest.raises(ValueError, match="marking.csv.*01_download"):
        READERS[reader](read_dataset(folder))
    if change == "a row more":
        picture = next(Path(read_dataset(folder)["folder"]).glob("*.jpg"))
        shutil.copy(picture, picture.with_name("new.jpg"))
    prepare(data)  # as it says
    READERS[reader](read_dataset(folder))


def test_parts_that_need_the_cache_alone_go_on_with_the_table_as_it_was(data, capsys):
    folder = prepare(data)
    batches.open_prepared(folder, CPU)
    assert "marking.csv" not in capsys.readouterr().out
    rewrite(data / "marking.csv", CHANGES["an age"])
    batches.open_prepared(folder, CPU)
    assert "marking.csv" in capsys.readouterr().out


@pytest.mark.parametrize("rows", [70, 79])
def test_a_list_of_ids_that_changed_after_01_is_noticed(rows, data, tmp_path):
    ids = pd.read_csv(data / "marking.csv")["image_id"]
    ids.iloc[:75].to_csv(tmp_path / "ids.csv", index=False)
    folder = prepare(data, ids=str(tmp_path / "ids.csv"))
    ids.iloc[:rows].to_csv(tmp_path / "ids.csv", index=False)
    with pytest.raises(ValueError, match="ids.csv.*01_download") as error:
        read_table(read_dataset(folder))
    assert str(rows) in str(error.value) and "75" in str(error.value)


def swap(folder: Path) -> None:
    first, second = sorted(folder.iterdir())[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


@pytest.mark.parametrize("kind", ["folder", "masks_folder"])
def test_files_that_changed_under_a_cache_are_noticed_by_02(kind, data):
    """The cache of what 01 read is there; nothing needs to be decoded."""
    folder = prepare(data)
    swap(Path(read_dataset(folder)[kind]))
    with pytest.raises(ValueError, match="01_download"):
        preprocess(folder)
    key = json.loads((folder / "cache.json").read_text())["key"]
    prepare(data)  # as it says
    _, photographs = batches.open_prepared(folder, CPU)
    assert photographs.key != key


def test_the_guesses_of_04_read_no_photograph_that_01_has_not_seen(data):
    folder = prepare(data)
    split = read_split(folder / "split.csv")
    dataset = read_dataset(folder)
    baselines(dataset, split)
    swap(Path(dataset["folder"]))
    with pytest.raises(ValueError, match="CRC-32"):
        baselines(dataset, split)


# networks and what was made of them


def write_results(folder: Path, made, fitted: Fitted, *, logit: float = 0.0) -> None:
    """What 04 leaves."""
    predictions = predict_held_out(fitted, made.split, made.photographs())
    predictions = predictions.assign(logit=predictions["logit"] + logit, probability=0.5)
    content = {"calibration": {"slope": 1.0, "intercept": 0.0}, "threshold": 0.5}
    checkpoint.write_results(folder, fitted, predictions, content)


@pytest.fixture
def trained(made, fitted, folders) -> Path:
    folder = made.prepare("run")
    write_results(folder, made, fitted)
    return folder


def another(fitted: Fitted) -> Fitted:
    """A network that has learned something else."""
    from helpers.model import AttnVGG

    torch.manual_seed(1)
    return fitted._replace(network=AttnVGG().eval())


LATER = (
    "audit.json",
    "evidence.json",
    "06_audit.ipynb",
    "07_evidence.ipynb",
    "figures/attention_malignant.png",
    "figures/evidence_corner.png",
    "figures/hidden.png",
)
OWN = ("figures/curves.png", "figures/mine.png", "04_train.ipynb", "notes.txt")


def test_what_was_made_of_another_network_does_not_lie_beside_the_new_one(
    trained, made, fitted, capsys
):
    (trained / "figures").mkdir()
    for name in (*LATER, *OWN):
        (trained / name).write_text(f"{name} of the first")
    before = torch.load(trained / "model.pt", weights_only=True)["config"]["network_key"]
    write_results(trained, made, fitted)  # the same network again
    assert all((trained / name).exists() for name in (*LATER, *OWN))
    assert not capsys.readouterr().out
    write_results(trained, made, another(fitted))
    assert not any((trained / name).exists() for name in LATER)
    assert all((trained / name).exists() for name in OWN)
    aside = trained / f"of-network-{before}"
    assert all((aside / name).read_text() == f"{name} of the first" for name in LATER), "not lost"
    said = capsys.readouterr().out
    assert aside.name in said and "06_audit" in said and "07_evidence" in said


def test_a_network_that_cannot_be_read_keeps_none_of_its_results_either(trained, made, fitted):
    (trained / "audit.json").write_text("{}")
    (trained / "model.pt").write_bytes(b"cut")
    write_results(trained, made, fitted)
    assert not (trained / "audit.json").exists()
    assert (trained / "of-network-unknown" / "audit.json").exists()


def test_every_result_of_a_network_carries_its_key(trained, fitted):
    key = checkpoint.network_key(fitted.network)
    assert checkpoint.read_metrics(trained)["network_key"] == key
    timing = workspace.read_json(trained / "timing.json", "04_train.ipynb")
    assert timing["network_key"] == key


READ = {"predictions.csv": checkpoint.read_predictions, "metrics.json": checkpoint.read_metrics}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("how", ["of another training", "changed by hand", "model.pt of another"])
def test_results_that_are_not_of_the_network_beside_them_are_refused(
    name, how, trained, made, fitted, tmp_path
):
    READ[name](trained)
    kept = shutil.copytree(trained, tmp_path / "kept")
    if how == "changed by hand":
        (trained / name).write_text((trained / name).read_text().replace("0.5", "0.6"))
    else:
        write_results(trained, made, another(fitted), logit=1.0)
        name_of_old = name if how == "of another training" else "model.pt"
        shutil.copy(kept / name_of_old, trained / name_of_old)
        if name == "metrics.json" and how == "of another training":
            assert (trained / name).read_bytes() == (kept / name).read_bytes()
    with pytest.raises(ValueError, match=f"{name}.*04_train"):
        READ[name](trained)
    write_results(trained, made, fitted)  # as it says
    READ[name](trained)


def split_of(made, change: str) -> pd.DataFrame:
    split = made.split.copy()
    row = split.index[split["kept"] == 1][0]
    column, value = {
        "a target": ("target", 1 - split.loc[row, "target"]),
        "a group": ("group", split["group"].max() + 1),
        "a mask": ("mask", ""),
        "a side": ("split", "val" if split.loc[row, "split"] != "val" else "train"),
    }[change]
    split.loc[row, column] = value
    return split


@pytest.mark.parametrize("change", ["a target", "a group", "a mask", "a side"])
def test_a_network_is_not_shown_a_split_of_other_rows(change, trained, made):
    path = trained / "model.pt"
    checkpoint.load_checkpoint(path, CPU, split=made.split)
    with pytest.raises(ValueError, match="split.csv.*04_train"):
        checkpoint.load_checkpoint(path, CPU, split=split_of(made, change))


def test_a_network_is_not_shown_photographs_that_it_was_not_trained_on(trained, made):
    photographs = made.photographs()
    checkpoint.load_checkpoint(trained / "model.pt", CPU, photographs=photographs)
    photographs.key = "another"
    with pytest.raises(ValueError, match="cache.json.*04_train"):
        checkpoint.load_checkpoint(trained / "model.pt", CPU, photographs=photographs)


def test_02_says_that_the_network_there_is_of_what_was_before(trained, made, capsys):
    checkpoint.say_what_no_longer_fits(trained)
    assert not capsys.readouterr().out
    split_of(made, "a side").to_csv(trained / "split.csv", index=False)
    checkpoint.say_what_no_longer_fits(trained)
    said = capsys.readouterr().out
    assert "model.pt" in said and "04_train" in said
    (trained / "model.pt").unlink()
    checkpoint.say_what_no_longer_fits(trained)
    assert not capsys.readouterr().out


def named_figures(notebook: Path) -> set[str]:
    """The figures that the cells of a notebook leave; a number in a name is 1."""
    cells = nbformat.read(notebook, as_version=4).cells
    code = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    names = set()
    for node in (node for tree in code for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "show":
            name = ast.unparse(node.args[1]).rsplit("/", 1)[1]
            name = name.strip().removeprefix("f").strip("'\"")
            names.add(re.sub(r"\{.+\}", "1", name))
    return names


def test_all_figures_of_a_network_are_known_as_such():
    """Those of the notebooks that open model.pt, but for times and what they train themselves."""
    known = []
    for pattern in checkpoint.OF_A_NETWORK:
        if pattern.startswith("figures/"):
            known.append(pattern.removeprefix("figures/"))
    folder = workspace.PROJECT / "notebooks"
    names = set()
    for path in ("05_visualize_attention", "06_audit", "07_evidence", "08_mend"):
        names |= named_figures(folder / f"{path}.ipynb")
    assert "attention_malignant.png" in names and "evidence_corner.png" in names
    for name in names:
        assert any(Path(name).match(pattern) for pattern in known), name
    for path in ("01_download", "02_preprocess", "03_attention_model", "04_train"):
        for name in named_figures(folder / f"{path}.ipynb"):
            assert not any(Path(name).match(pattern) for pattern in known), name


# controls


def control_of(made, fitted, split: pd.DataFrame, **config) -> Path:
    """A run without attention, trained on this split."""
    from helpers.model import AttnVGG

    folder = made.prepare("control")
    split.to_csv(folder / "split.csv", index=False)
    network = AttnVGG(attention="none").eval()
    made_from = {**fitted.config["made_from"], "rows": checkpoint.rows_key(split)}
    described = {
        **fitted.config,
        "attention": "none",
        "made_from": made_from,
        "split": checkpoint.split_key(split),
        **config,
    }
    write_results(folder, made, fitted._replace(network=network, config=described))
    return folder


def load(made, fitted):
    return load_control("control", CPU, split=made.split, config=fitted.config)


def test_a_control_of_the_same_split_is_taken(trained, made, fitted):
    folder = control_of(made, fitted, made.split)
    _, settings = load(made, fitted)
    assert settings["attention"] == "none"
    ours, theirs = checkpoint.read_predictions(trained), checkpoint.read_predictions(folder)
    assert common_test(ours, theirs) == len(made.test)
    fewer = theirs.drop(theirs.index[theirs["split"] == "test"][:3])
    assert common_test(ours, fewer) == len(made.test) - 3


@pytest.mark.parametrize("how", ["itself", "its patient", "its twin"])
def test_a_control_that_learned_from_our_test_photographs_is_refused(how, trained, made, fitted):
    test = made.used.loc[made.test[0], "image_id"]
    split = made.split.copy()
    train = split.index[(split["split"] == "train") & (split["kept"] == 1)]
    here = split.index[split["image_id"] == test]
    if how == "itself":
        split.loc[here, ["split", "kept"]] = "train", 1
    elif how == "its patient":  # which balance left out, but not its patient
        split.loc[here, ["split", "kept"]] = "train", 0
        split.loc[here, "group"] = split.loc[train[0], "group"]
    else:
        split.loc[train[0], "image_id"] = f"{test}_downsampled"
    control_of(made, fitted, split)
    with pytest.raises(ValueError, match=test):
        load(made, fitted)


def test_a_control_that_tested_on_what_we_trained_on_is_taken(trained, made, fitted):
    """Of other photographs of test, those of both are compared."""
    split = made.split.copy()
    train = split.index[(split["split"] == "train") & (split["target"] == 0)]
    split.loc[train[:3], "split"] = "test"
    control_of(made, fitted, split)
    load(made, fitted)


@pytest.mark.parametrize(
    "config, fact",
    [({"attention": "softmax"}, "softmax"), ({"image_size": 64}, "64"), ({"view": 0.7}, "0.7")],
)
def test_a_control_that_differs_in_more_than_attention_is_refused(
    config, fact, trained, made, fitted
):
    folder = control_of(made, fitted, made.split, **config)
    if config.get("attention"):
        shutil.copy(trained / "model.pt", folder / "model.pt")
    with pytest.raises(ValueError, match=f"control.*{re.escape(fact)}"):
        load(made, fitted)


def test_a_control_of_other_diagnoses_is_refused(trained, made, fitted):
    split = made.split.copy()
    split["target"] = [1 - split["target"].iloc[0], *split["target"].iloc[1:]]
    control_of(made, fitted, split)
    with pytest.raises(ValueError, match=split["image_id"].iloc[0]):
        load(made, fitted)


def test_a_control_that_is_not_there_is_named_and_no_folder_is_made(trained, made, fitted, folders):
    with pytest.raises(FileNotFoundError, match="control"):
        load(made, fitted)
    assert not (folders.runs / "control").exists()
    (folders.runs / "control").mkdir()
    with pytest.raises(FileNotFoundError, match="model.pt"):
        load(made, fitted)
    assert os.listdir(folders.runs / "control") == []


def own_control(trained: Path, made, fitted: Fitted, **facts) -> None:
    """What 04 leaves of the control that it trains beside the network; `facts` differ in it."""
    from helpers.model import AttnVGG

    torch.manual_seed(0)
    without = {"attention": "none"}
    made_from = {**fitted.config["made_from"], **without, **facts}
    described = {**fitted.config, **without, "made_from": made_from}
    network = AttnVGG(attention="none").eval()
    write_results(trained / CONTROL, made, fitted._replace(network=network, config=described))


def load_beside(trained: Path, made, fitted: Fitted):
    return load_control("own", CPU, split=made.split, config=fitted.config, folder=trained)


def test_the_control_that_was_trained_beside_a_network_is_taken(trained, made, fitted):
    own_control(trained, made, fitted)
    network, settings = load_beside(trained, made, fitted)
    assert network.attention == settings["attention"] == "none"
    (trained / CONTROL / "split.csv").write_text("damaged")  # the run's own split counts
    load_beside(trained, made, fitted)


@pytest.mark.parametrize(
    "facts",
    [
        {"seed": 1},
        {"epochs": 3},
        {"recipe": "tutorial"},
        {"bypass": False},
        {"photographs": "another"},
        {"training": 0},
        {"torch": "1.0"},
    ],
    ids=str,
)
def test_an_old_control_beside_a_newer_network_is_refused(facts, trained, made, fitted):
    """04 has trained the network again with another setting, and `control` ''."""
    own_control(trained, made, fitted, **facts)
    with pytest.raises(ValueError, match=f"control.*{next(iter(facts))}.*04_train"):
        load_beside(trained, made, fitted)
    own_control(trained, made, fitted)  # as it says
    load_beside(trained, made, fitted)


def test_a_network_trained_again_with_the_same_settings_keeps_its_control(trained, made, fitted):
    own_control(trained, made, fitted)
    write_results(trained, made, fitted)
    load_beside(trained, made, fitted)


@pytest.mark.parametrize("change", ["a target", "a group", "a side"])
def test_a_control_of_its_own_is_of_the_same_split(change, trained, made, fitted):
    own_control(trained, made, fitted)
    split = split_of(made, change)
    with pytest.raises(ValueError, match="04_train"):
        load_control("own", CPU, split=split, config=fitted.config, folder=trained)


def test_a_control_of_its_own_has_no_attention(trained, made, fitted):
    own_control(trained, made, fitted)
    shutil.copy(trained / "model.pt", trained / CONTROL / "model.pt")
    with pytest.raises(ValueError, match="control.*softmax"):
        load_beside(trained, made, fitted)


@pytest.mark.parametrize("name", ["model.pt", "predictions.csv"])
def test_a_control_of_its_own_that_is_not_there_is_named_with_what_to_do(
    name, trained, made, fitted
):
    own_control(trained, made, fitted)
    (trained / CONTROL / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}.*04_train") as error:
        load_beside(trained, made, fitted)
    assert "'own'" in str(error.value) and "''" in str(error.value)


# what an error says to do


@pytest.mark.parametrize(
    "there, asked, notebook, first",
    [
        ([], "split.csv", "02_preprocess.ipynb", "01"),
        ([], "model.pt", "04_train.ipynb", "01"),
        (["dataset.json"], "cache.json", "02_preprocess.ipynb", "02"),
        (["dataset.json"], "model.pt", "04_train.ipynb", "02"),
        (["dataset.json", "cache.json"], "split.csv", "02_preprocess.ipynb", "02"),
        (["dataset.json", "split.csv", "cache.json"], "model.pt", "04_train.ipynb", "04"),
    ],
)
def test_the_command_for_what_is_missing_makes_nothing_again_that_is_there(
    there, asked, notebook, first, tmp_path
):
    """From 01 on it would put the sample in place of the data set that the run has."""
    for name in there:
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError) as error:
        workspace.need(tmp_path / asked, notebook)
    words = ast.literal_eval(re.search(r"main\((\[.+\])\)", str(error.value))[1])
    assert words == ["--run", tmp_path.name, "--from", first, "--to", notebook[:2]]
