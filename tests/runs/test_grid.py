"""Grids of runs: what runs, what does not run again, what a failure or a killed process costs."""

import hashlib
import json
import os
import shutil
import threading
from pathlib import Path

import pandas as pd
import pytest

from helpers import workspace
from helpers.runs import command, grid, parameters
from helpers.runs.series import NotebookFailed
from helpers.training.control import CONTROL
from tests.runs.conftest import AXES
from tests.runs.toys import injected, write_notebook

POINTS = [
    "g-attention=softmax-seed=0",
    "g-attention=softmax-seed=1",
    "g-attention=none-seed=0",
    "g-attention=none-seed=1",
]
FIRST = ["01 g", "02 g"]
ALL = [*FIRST, *(f"04 {point}" for point in POINTS)]


# which runs


def test_points_are_the_product_in_order_and_named_so_that_a_run_may_be():
    points = grid.name_points("g", {**AXES, "gamma": [0.0, 2.0]})
    assert list(points)[:3] == [
        "g-attention=softmax-seed=0-gamma=0.0",
        "g-attention=softmax-seed=0-gamma=2.0",
        "g-attention=softmax-seed=1-gamma=0.0",
    ]
    last = {"attention": "none", "seed": 1, "gamma": 2.0}
    assert len(points) == 8 and points["g-attention=none-seed=1-gamma=2.0"] == last
    names = list(grid.name_points("g", {"weights": ["none", "/a/b/vgg.pth"]}))
    assert names == ["g-weights=none", "g-weights=vgg.pth"]
    for values in (["a/vgg.pth", "b/vgg.pth"], ["none", "none"]):
        with pytest.raises(ValueError, match="'g-weights="):
            grid.name_points("g", {"weights": values})


def test_all_run_once_and_nothing_twice(toy, folders):
    assert toy.run() == {} and toy.ran() == ALL
    for point in POINTS:
        record = json.loads((folders.runs / point / "point.json").read_text())
        assert record["parameters"]["run"] == point and record["parameters"]["epochs"] == 8
        assert record["parameters"]["attention"] == point.split("=")[1].split("-")[0]
        for name in grid.SHARED:
            shared = (folders.runs / "g" / name).read_bytes()
            assert (folders.runs / point / name).read_bytes() == shared
    assert toy.run() == {} and toy.ran() == []


def test_a_grown_grid_runs_what_is_new(toy):
    toy.run()
    toy.ran()
    toy.run(axes={"attention": ["none", "sigmoid", "softmax"], "seed": [1]})
    assert toy.ran() == ["04 g-attention=sigmoid-seed=1"]


# what shaped a point: where any of it differs, the point is run again


def test_other_parameters_run_again(toy):
    toy.run()
    toy.ran()
    toy.run(parameters={**toy.plan.parameters, "epochs": 9})
    assert toy.ran() == ALL[2:], "photographs and split are the same"


def test_another_split_runs_again(toy):
    toy.run()
    toy.ran()
    toy.run(shared={"split_seed": 5})
    assert toy.ran() == ALL
    toy.run(shared={"split_seed": 9})
    assert toy.ran() == FIRST, "made again, and the same"


def test_other_photographs_under_the_same_names_run_again(toy):
    toy.run()
    toy.ran()
    (toy.photographs / "a.jpg").write_text("a wart")
    toy.run()
    assert toy.ran() == ALL
    (toy.photographs / "b.jpg").write_text("a mole more")
    toy.run()
    assert toy.ran() == ALL


@pytest.mark.parametrize("name", ["ids", "pairs", "masks"])
def test_a_table_or_archive_that_changed_is_read_again(name, toy, tmp_path):
    file = tmp_path / "mine"
    file.write_text("id1\n")
    shared = {"split_seed": 4, name: str(file)}
    toy.run(shared=shared)
    toy.ran()
    toy.run(shared=shared)
    assert toy.ran() == []
    file.write_text("id2\n")
    toy.run(shared=shared)
    assert toy.ran() == FIRST, "01 and 02 say whether it changes the split; here it does not"


def test_other_weights_under_the_same_name_run_again_and_moved_ones_do_not(toy, tmp_path):
    file = tmp_path / "vgg.pth"
    file.write_bytes(b"one")
    start = {**toy.plan.parameters, "weights": str(file)}
    toy.run(parameters=start)
    assert toy.ran() == ALL
    moved = tmp_path / "elsewhere.pth"
    shutil.copyfile(file, moved)
    toy.run(parameters={**start, "weights": str(moved)})
    assert toy.ran() == []
    file.write_bytes(b"two")
    toy.run(parameters=start)
    assert toy.ran() == ALL[2:]


def test_another_way_of_training_runs_again(toy, monkeypatch):
    toy.run()
    toy.ran()
    monkeypatch.setattr(grid, "TRAINING_VERSION", grid.TRAINING_VERSION + 1)
    toy.run()
    assert toy.ran() == ALL[2:]


def test_what_a_point_left_is_whole_or_run_again(toy, folders):
    toy.run()
    toy.ran()
    predictions = folders.runs / POINTS[1] / "predictions.csv"
    text = predictions.read_text()
    predictions.write_text(text.replace("id1,", "id9,", 1))  # as long as it was
    (folders.runs / POINTS[2] / "model.pt").unlink()
    toy.run()
    assert toy.ran() == [f"04 {POINTS[1]}", f"04 {POINTS[2]}"]
    assert predictions.read_text() == text


def test_a_control_that_changed_runs_again(toy, folders):
    def execute(notebook, values, folder):
        toy.execute(notebook, values, folder)
        if notebook.stem == "04":
            (folder / CONTROL).mkdir(exist_ok=True)
            (folder / CONTROL / "predictions.csv").write_text("of the control")

    toy.run(execute=execute)
    toy.ran()
    toy.run(execute=execute)
    assert toy.ran() == []
    (folders.runs / POINTS[0] / CONTROL / "predictions.csv").write_text("of another")
    toy.run(execute=execute)
    assert toy.ran() == [f"04 {POINTS[0]}"]


def test_a_deleted_cache_is_made_again(toy):
    toy.run()
    toy.ran()
    toy.pixels.unlink()
    toy.run()
    assert toy.ran() == FIRST


@pytest.mark.parametrize(
    "axis, values, keys",
    [
        ("image_size", [64, 96], ["64 of 1.0", "96 of 1.0"]),
        ("recipe", ["tutorial", "paper"], ["96 of 1.0", "96 of 0.7"]),
    ],
)
def test_another_size_or_view_is_another_cache_of_the_same_split(
    axis, values, keys, toy, folders, monkeypatch
):
    def build_cache(dataset, split, image_size, view):
        return {"file": str(toy.pixels), "key": f"{image_size} of {view}"}

    monkeypatch.setattr(grid, "build_cache", build_cache)
    monkeypatch.setattr(grid, "cache_key", lambda dataset, split, side: f"of {side} pixels")
    sized = {"attention": "none", "seed": 42, "image_size": 96, "recipe": "one_cycle"}
    assert toy.run(axes={axis: values}, parameters=sized) == {}
    split = (folders.runs / "g" / "split.csv").read_bytes()
    for value, key in zip(values, keys, strict=True):
        folder = folders.runs / f"g-{axis}={value}"
        assert json.loads((folder / "cache.json").read_text())["key"] == key
        assert (folder / "split.csv").read_bytes() == split


@pytest.fixture
def sized(toy, monkeypatch):
    """A grid over size and seed; `built` says for which sizes caches were made.

    There is room for caches up to the size `room`.
    """

    def build_cache(dataset, split, image_size, view):
        toy.built.append(image_size)
        if image_size > toy.room:
            raise OSError(f"the cache of {image_size} pixels takes 9 GB\nmake room")
        return {"file": str(toy.pixels), "key": f"of {image_size}"}

    toy.built = []
    toy.room = 1000
    toy.plan = toy.plan._replace(
        axes={"image_size": [64, 96], "seed": [0, 1]},
        parameters={"attention": "none", "recipe": "one_cycle"},
    )
    monkeypatch.setattr(grid, "build_cache", build_cache)
    monkeypatch.setattr(grid, "cache_key", lambda dataset, split, side: f"of {side} pixels")
    return toy


def test_a_cache_is_made_once_and_none_for_points_that_are_done(sized):
    """Formerly all photographs were read again for each point, done or not."""
    assert sized.run() == {} and sized.built == [64, 96]
    sized.built.clear()
    assert sized.run() == {} and sized.built == []
    assert sized.run(axes={"image_size": [64, 96], "seed": [0, 1, 2]}) == {}
    assert sized.built == [64, 96]


# failures


def test_a_cache_without_room_costs_no_other_point(sized, folders):
    """Formerly it ended the grid with a traceback, before any point had run."""
    sized.room = 64
    points = [f"g-image_size={size}-seed={seed}" for size in (64, 96) for seed in (0, 1)]
    assert sized.run() == dict.fromkeys(points[2:], "the cache of 96 pixels takes 9 GB")
    assert sized.ran() == [*FIRST, *(f"04 {point}" for point in points[:2])]
    table = folders.runs / "g" / "compare.csv"
    assert pd.read_csv(table)["run"].tolist() == points[:2]
    assert f"- {points[2]}: the cache of 96" in (folders.runs / "g" / "compare.md").read_text()
    sized.room = 96
    assert sized.run() == {} and sized.ran() == [f"04 {point}" for point in points[2:]]
    assert pd.read_csv(table)["run"].tolist() == points
    sized.room = 0
    assert sized.run() == {}, "what is done needs no room"


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"format": 99}', '{"format": 1}'])
@pytest.mark.parametrize(
    "name, again",
    [
        ("g/grid.json", FIRST),
        ("g/dataset.json", FIRST),
        (f"{POINTS[1]}/point.json", [f"04 {POINTS[1]}"]),
    ],
)
def test_a_record_that_is_damaged_or_of_another_format_is_made_again(
    name, again, content, toy, folders
):
    """Formerly the advice was to start the grid again, which met the same file."""
    toy.run()
    toy.ran()
    (folders.runs / name).write_text(content)
    assert toy.run() == {} and toy.ran() == again
    assert toy.run() == {} and toy.ran() == []


def test_what_lies_behind_links_is_part_of_what_a_folder_holds(tmp_path):
    """Folders of classes may be links, as 01 takes them."""
    elsewhere = tmp_path / "elsewhere"
    folder = tmp_path / "set"
    for place in (elsewhere, folder):
        place.mkdir()
    (elsewhere / "a.jpg").write_text("a mole")
    (folder / "benign").symlink_to(elsewhere)
    (folder / "round").symlink_to(folder)
    before = grid.digest(folder)
    (elsewhere / "a.jpg").write_text("a wart")
    changed = grid.digest(folder)
    (elsewhere / "b.jpg").write_text("a mole more")
    assert len({before, changed, grid.digest(folder)}) == 3


def test_the_digest_of_a_plain_folder_is_as_ever(tmp_path):
    """A grid's record holds it: where it changes, photographs and split are made again."""
    lines = []
    for name in ("a/b.jpg", "a/c/d.jpg", "a-b.jpg", "z.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        lines.append(f"{name} {hashlib.sha256(name.encode()).hexdigest()}")
    expected = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert grid.digest(tmp_path) == expected


def test_one_failed_point_costs_no_other_and_is_tried_again(toy, folders):
    toy.broken = {POINTS[0]: NotebookFailed("cell 7: boom\nstored there"), POINTS[3]: OSError()}
    assert toy.run() == {POINTS[0]: "cell 7: boom", POINTS[3]: "OSError()"}
    assert toy.ran() == ALL
    table = folders.runs / "g" / "compare.csv"
    text = folders.runs / "g" / "compare.md"
    assert pd.read_csv(table)["run"].tolist() == POINTS[1:3]
    assert f"- {POINTS[0]}: cell 7: boom" in text.read_text()
    toy.broken = {}
    assert toy.run() == {} and toy.ran() == [f"04 {POINTS[0]}", f"04 {POINTS[3]}"]
    assert pd.read_csv(table)["run"].tolist() == POINTS and "Failed" not in text.read_text()


def test_where_all_fail_nothing_is_compared(toy, folders):
    toy.broken = dict.fromkeys(POINTS, ValueError("boom"))
    assert set(toy.run().values()) == {"boom"}
    assert not (folders.runs / "g" / "compare.md").exists()


def test_a_notebook_that_leaves_too_little_has_failed(toy, folders):
    def execute(notebook, values, folder):
        toy.execute(notebook, values, folder)
        if values["run"] == POINTS[0]:
            (folder / "metrics.json").unlink()

    failed = toy.run(execute=execute)
    assert list(failed) == POINTS[:1] and "metrics.json" in failed[POINTS[0]]
    assert pd.read_csv(folders.runs / "g" / "compare.csv")["run"].tolist() == POINTS[1:]


def test_a_shared_notebook_that_failed_is_run_again(toy):
    def execute(notebook, values, folder):
        toy.execute(notebook, values, folder)
        if notebook.stem == "02":
            raise NotebookFailed("boom")

    with pytest.raises(NotebookFailed):
        toy.run(execute=execute)
    assert toy.ran() == FIRST and toy.run() == {} and toy.ran() == ALL
    with pytest.raises(NotebookFailed):
        toy.run(execute=execute, shared={"split_seed": 5})  # leaves another split
    assert toy.ran() == FIRST and toy.run() == {} and toy.ran() == FIRST


def test_a_killed_process_leaves_a_point_to_be_run_again(toy):
    def execute(notebook, values, folder):
        toy.execute(notebook, values, folder)
        if values["run"] == POINTS[1]:
            raise KeyboardInterrupt  # as a kill does: no record, whatever files are there

    with pytest.raises(KeyboardInterrupt):
        toy.run(execute=execute)
    assert toy.ran() == ALL[:4] and toy.run() == {} and toy.ran() == ALL[3:]


def test_a_point_that_another_process_is_running_is_waited_for(toy, folders):
    toy.run()
    toy.ran()
    folder = folders.runs / POINTS[0]
    done = grid.read_point(folder)
    begun = {key: done[key] for key in ("notebook", "parameters", "shaped_by")}
    workspace.write_json(folder / "point.json", begun)
    reasons = []
    waiting = threading.Thread(
        target=lambda: reasons.append(grid.run_point(POINTS[0], toy.execute))
    )
    with workspace.locked(folder / "point"):
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        workspace.write_json(folder / "point.json", done)  # the other one ends
    waiting.join(5)
    assert reasons == [""] and toy.ran() == []


# from the command line

DECLARED = {
    "01_toy": "dataset: str = 'sample'  # d\nrun: str = 'sample'  # r",
    "02_toy": "run: str = 'sample'  # r\nsplit_seed: int = 42  # s\nseed: int = 42  # s",
    "04_toy": "run: str = 'sample'  # r\nattention: str = 'softmax'  # a\nseed: int = 42  # s\n"
    "epochs: int = 8  # e\nmask_weight_pool3: float = 0.0  # m\nweights: str = 'none'  # w",
}
SETUP = """
import json, os, pathlib
log, name = pathlib.Path(LOG), NAME
folder = pathlib.Path(os.environ['ATTENTION_RUNS']) / run
def write(name, content):
    (folder / name).write_text(json.dumps({'format': 1} | content))
with log.open('a') as file:
    print(name, run, *map(os.environ.get, ['OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES']), file=file)
"""
BODY = {
    "01_toy": "write('dataset.json', {})",
    "02_toy": """
rows = [f'i{n},{n},a,{n % 2}' for n in range(40)]
(folder / 'split.csv').write_text('\\n'.join(['image_id,group,source,target', *rows, '']))
write('cache.json', {'file': str(log)})
""",
    "04_toy": """
if attention == 'sigmoid': raise ValueError('broken')
head, *lines = (folder / 'split.csv').read_text().splitlines()
rows = [f'{line},test,{n * 7 % 40},0.5' for n, line in enumerate(lines)]
(folder / 'predictions.csv').write_text('\\n'.join([head + ',split,logit,probability', *rows]))
figures = dict(auc=.6, auc_low=.5, auc_high=.7, ap=.5, n=40, positives=20)
write('metrics.json', {'test': figures})
for left in ('model.pt', 'history.csv', 'timing.json'): write(left, {})
""",
}


@pytest.fixture
def series(tmp_path, folders, monkeypatch) -> list[Path]:
    """Toy notebooks in place of 01, 02 and 04, which log that they ran and what they saw."""
    log = tmp_path / "log"
    log.touch()
    paths = []
    for name, declared in DECLARED.items():
        setup = SETUP.replace("LOG", repr(str(log))).replace("NAME", repr(name))
        path = tmp_path / f"{name}.ipynb"
        paths.append(write_notebook(path, declared, setup + BODY[name]))
    monkeypatch.setattr(command, "NOTEBOOKS", paths)
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    monkeypatch.chdir(tmp_path)
    return paths


def logged(tmp_path) -> list[list[str]]:
    """Notebook, run, threads and GPU of each that ran."""
    return [line.split() for line in (tmp_path / "log").read_text().splitlines()]


def test_a_grid_through_papermill(series, folders, tmp_path, capsys):
    arguments = ["--run", "g", "--grid", "seed=3", "-p", "epochs", "4", "--grid"]
    assert command.main([*arguments, "attention=sigmoid,none"]) == 1
    names = [f"g-seed=3-attention={attention}" for attention in ("sigmoid", "none")]
    assert [line[:2] for line in logged(tmp_path)] == [
        ["01_toy", "g"],
        ["02_toy", "g"],
        ["04_toy", names[0]],
        ["04_toy", names[1]],
    ]
    output = capsys.readouterr()
    assert f"{names[0]} failed: 04_toy.ipynb" in output.err and "ValueError: broken" in output.err
    assert "Traceback" not in output.err + output.out
    assert str(folders.runs / "g" / "compare.md") in output.out and "[2/2]" in output.out
    cell = injected(folders.runs / names[1] / "04_toy.ipynb")
    assert "epochs = 4" in cell and 'attention = "none"' in cell
    assert command.main([*arguments, "attention=none"]) == 0
    assert len(logged(tmp_path)) == 4, "it was done"


def test_workers_on_this_machine(series, folders, tmp_path, monkeypatch, capsys):
    """Two workers, each with its share of the cores and a GPU of its own; one point fails."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    arguments = ["--run", "g", "--grid", "attention=softmax,sigmoid,none", "--workers", "2"]
    assert command.main(arguments) == 1
    lines = logged(tmp_path)
    assert [line[:2] for line in lines[:2]] == [["01_toy", "g"], ["02_toy", "g"]]
    assert sorted(line[:2] for line in lines[2:]) == [
        ["04_toy", "g-attention=none"],
        ["04_toy", "g-attention=sigmoid"],
        ["04_toy", "g-attention=softmax"],
    ]
    assert {tuple(line[2:]) for line in lines[2:]} == {("3", "5"), ("3", "7")}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"
    output = capsys.readouterr()
    assert "[3/3]" in output.out and "g-attention=sigmoid failed: 04_toy.ipynb" in output.err
    table = pd.read_csv(folders.runs / "g" / "compare.csv")
    assert table["attention"].tolist() == ["softmax", "none"]


@pytest.mark.parametrize(
    "arguments, fact",
    [
        (["--grid", "atention=softmax"], "'attention'"),
        (["--grid", "seed=0,one"], "'one'"),
        (["--grid", "seed=0,"], "seed is ''"),
        (["--grid", "seed"], "'seed'"),
        (["--grid", "seed="], "'seed='"),
        (["--grid", "attention=softmax,self"], "g-attention=self: "),
        (
            ["--grid", "attention=sigmoid,none", "-p", "mask_weight_pool3", "0.1"],
            "g-attention=none: ",
        ),
        (["--grid", "weights=none,absent.pth"], "absent.pth"),
        (["--grid", "split_seed=1,2"], "04_toy"),
        (["--grid", "run=a,b"], "--grid run"),
        (["--grid", "seed=0,0"], "'g-seed=0'"),
        (["--grid", "seed=0", "--grid", "seed=1"], "--grid seed"),
        (["--grid", "seed=0,1", "-p", "seed", "1"], "-p"),
        (["--grid", "seed=0,1", "--only", "04"], "--only"),
        (["--grid", "seed=0,1", "--workers", "0"], "--workers is at least 1"),
        (["--grid", "seed=0,1", "--workers", "2", "--scheduler", "tcp://x:1"], "--scheduler"),
        (["--workers", "2"], "--grid"),
        (["--scheduler", "tcp://x:1"], "--grid"),
        (["--gird", "seed=0"], "--grid seed=0"),
        (["--grid", "seed=0,1", "--from", ""], "--from"),
        (["--grid", "split=1", "--dataset", "sample", "--dataset", "kaggle"], "--dataset"),
        (["--grid", "seed=0,1", "-p", "dataset", "sample", "--dataset", "kaggle"], "dataset is"),
    ],
)
def test_what_is_wrong_is_said_and_leaves_nothing(
    arguments, fact, series, tmp_path, folders, capsys
):
    assert command.main(["--run", "g", *arguments]) == 2
    output = capsys.readouterr()
    assert fact in output.err and "Traceback" not in output.err
    assert logged(tmp_path) == [] and not folders.runs.exists()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("metrics.json is damaged"),
        FileNotFoundError("predictions.csv is not there"),
        workspace.CannotRead("the disk fails"),
    ],
)
def test_what_ends_a_whole_grid_is_said_in_a_sentence(error, series, monkeypatch, capsys):
    """Formerly by a traceback."""

    def ends(*arguments, **options):
        raise error

    monkeypatch.setattr(grid, "run_grid", ends)
    assert command.main(["--run", "g", "--grid", "seed=0,1"]) == 1
    said = capsys.readouterr().err
    assert str(error) in said and "Traceback" not in said


def test_a_grid_needs_a_name(series, capsys):
    assert command.main(["--grid", "seed=0"]) == 2
    assert "--run NAME" in capsys.readouterr().err


def test_a_grid_takes_the_place_of_a_files_values(series, tmp_path):
    (tmp_path / "mine.yaml").write_text("attention: softmax\nmask_weight_pool3: 0.1\nrun: g\n")
    known = parameters.known_parameters(series)
    values = parameters.read_parameters("mine.yaml", [], known)
    plan = command.read_grid(["attention=sigmoid", "seed=1,2"], values, [], known)
    assert plan.axes == {"attention": ["sigmoid"], "seed": [1, 2]} and plan.name == "g"
    assert plan.parameters["mask_weight_pool3"] == 0.1 and plan.parameters["epochs"] == 8
    assert plan.shared == {"dataset": "sample", "split_seed": 42}


@pytest.mark.parametrize(
    "values, texts, expected",
    [
        ({}, ["seed=1,2"], ""),
        ({"control": "own"}, ["seed=1,2"], "own"),
        ({"control": "plain"}, ["seed=1,2"], "plain"),
    ],
)
def test_a_grid_trains_a_control_at_each_point_only_if_asked_for(values, texts, expected, series):
    write_notebook(series[2], DECLARED[series[2].stem] + '\ncontrol: str = "own"')
    known = parameters.known_parameters(series)
    plan = command.read_grid(texts, {"run": "g", **values}, [], known)
    assert plan.parameters["control"] == expected


def test_the_first_cache_of_several_sizes_is_the_first_points(series, tmp_path):
    for path in series[1:]:
        declared = DECLARED[path.stem] + "\nimage_size: int = 96"
        write_notebook(path, declared)
    known = parameters.known_parameters(series)
    plan = command.read_grid(["image_size=64,128"], {"run": "g"}, [], known)
    assert plan.shared["image_size"] == 64
