"""Grids of runs: what runs, what does not run again, what a failure or a killed process costs, and the comparison."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from helpers import workspace
from helpers.photographs import sources
from helpers.photographs.cache import build_cache
from helpers.photographs.sample import make_sample
from helpers.photographs.split import make_split
from helpers.runs import command, compare, grid, parameters

AXES = {"attention": ["softmax", "none"], "seed": [0, 1]}
POINTS = [
    "g-attention=softmax-seed=0",
    "g-attention=softmax-seed=1",
    "g-attention=none-seed=0",
    "g-attention=none-seed=1",
]
TOY = {
    "01_toy": "dataset: str = 'sample'  # d\nrun: str = 'sample'  # r",
    "02_toy": "run: str = 'sample'  # r\nsplit_seed: int = 42  # s\nseed: int = 42  # s",
    "04_toy": "run: str = 'sample'  # r\nattention: str = 'softmax'  # a\nseed: int = 42  # s\n"
    "epochs: int = 8  # e\nmask_weight_pool3: float = 0.0  # m\nweights: str = 'none'  # w",
}


def leave_figures(folder: Path, shift: float, seed: int) -> None:
    """What a point leaves, with random logits; the larger `shift`, the better they order the test photographs."""
    rng = np.random.default_rng(seed)
    split = pd.read_csv(folder / "split.csv")
    target = split["target"].to_numpy()
    split.assign(split="test", logit=rng.normal(size=len(split)) + shift * target).to_csv(
        folder / "predictions.csv", index=False
    )
    auc = roc_auc_score(target, pd.read_csv(folder / "predictions.csv")["logit"])
    workspace.write_json(
        folder / "metrics.json",
        {
            "test": {
                "auc": auc,
                "auc_low": auc - 0.1,
                "auc_high": min(1, auc + 0.1),
                "ap": 0.5,
                "n": len(split),
                "positives": int(target.sum()),
            }
        },
    )
    for name in ("model.pt", "history.csv", "timing.json"):
        (folder / name).write_text("{}")


@pytest.fixture
def toy(folders, tmp_path):
    """A 2x2 grid whose notebooks are a function; `log` has what it was called for, `broken` the points that fail."""
    made = SimpleNamespace(log=[], broken={})

    def execute(notebook: Path, values: dict, folder: Path) -> None:
        made.log.append(f"{notebook.stem} {values['run']}")
        if notebook.stem == "01":
            (folder / "dataset.json").write_text("{}")
        elif notebook.stem == "02":
            rows = range(80)
            pd.DataFrame(
                {
                    "image_id": [f"id{n}" for n in rows],
                    "group": [n // 2 for n in rows],
                    "source": "a",
                    "target": [int(n % 4 == values["split_seed"] % 4) for n in rows],
                    "path": "",
                    "mask": "",
                    "split": "train",
                    "kept": 1,
                }
            ).to_csv(folder / "split.csv", index=False)
            (tmp_path / "pixels").touch()
            workspace.write_json(folder / "cache.json", {"file": str(tmp_path / "pixels")})
        else:
            if values["run"] in made.broken:
                raise made.broken[values["run"]]
            leave_figures(folder, 3.0 * (values["attention"] != "none"), values["seed"])

    made.plan = grid.Grid(
        "g",
        AXES,
        [Path("01"), Path("02")],
        {"split_seed": 4},
        Path("04"),
        {"attention": "softmax", "seed": 42, "epochs": 8},
        execute,
    )
    made.run = lambda **changed: grid.run_grid(
        made.plan._replace(**changed), report=lambda line: None
    )
    return made


def ran(toy) -> list[str]:
    """What ran since the last call."""
    found, toy.log[:] = list(toy.log), []
    return found


ALL = ["01 g", "02 g", *(f"04 {point}" for point in POINTS)]


# which runs


def test_points_are_the_product_in_order_and_named_so_that_a_run_may_be():
    points = grid.name_points("g", {**AXES, "gamma": [0.0, 2.0]})
    assert list(points)[:3] == [
        "g-attention=softmax-seed=0-gamma=0.0",
        "g-attention=softmax-seed=0-gamma=2.0",
        "g-attention=softmax-seed=1-gamma=0.0",
    ]
    assert len(points) == 8 and points["g-attention=none-seed=1-gamma=2.0"] == {
        "attention": "none",
        "seed": 1,
        "gamma": 2.0,
    }
    assert list(grid.name_points("g", {"weights": ["none", "/a/b/vgg.pth"]})) == [
        "g-weights=none",
        "g-weights=vgg.pth",
    ]
    for values in (["a/vgg.pth", "b/vgg.pth"], ["none", "none"]):
        with pytest.raises(ValueError, match="two points of the grid would be the run 'g-weights="):
            grid.name_points("g", {"weights": values})


def test_all_run_once_and_nothing_twice(toy, folders):
    assert toy.run() == {} and ran(toy) == ALL
    for point in POINTS:
        seen = json.loads((folders.runs / point / "point.json").read_text())
        assert seen["parameters"]["run"] == point and seen["parameters"]["epochs"] == 8
        assert seen["parameters"]["attention"] == point.split("=")[1].split("-")[0]
        for name in grid.SHARED:
            assert (folders.runs / point / name).read_bytes() == (
                folders.runs / "g" / name
            ).read_bytes()
    assert toy.run() == {} and ran(toy) == []


def test_a_grown_grid_runs_what_is_new(toy):
    toy.run()
    ran(toy)
    toy.run(axes={"attention": ["none", "sigmoid", "softmax"], "seed": [1]})
    assert ran(toy) == ["04 g-attention=sigmoid-seed=1"]


def test_other_parameters_another_split_or_a_damaged_file_run_again(toy, folders, tmp_path):
    toy.run()
    ran(toy)
    toy.run(parameters={**toy.plan.parameters, "epochs": 9})
    assert ran(toy) == ALL[2:], "the split is the same"
    toy.run(parameters={**toy.plan.parameters, "epochs": 9}, shared={"split_seed": 5})
    assert ran(toy) == ALL, "other photographs"
    toy.run(parameters={**toy.plan.parameters, "epochs": 9}, shared={"split_seed": 9})
    assert ran(toy) == ALL[:2], "the shared part is made again, and is the same"
    (folders.runs / POINTS[1] / "predictions.csv").write_text("image_id,split\n")
    (folders.runs / POINTS[2] / "model.pt").unlink()
    toy.run(parameters={**toy.plan.parameters, "epochs": 9}, shared={"split_seed": 9})
    assert ran(toy) == [f"04 {POINTS[1]}", f"04 {POINTS[2]}"]
    (tmp_path / "pixels").unlink()
    toy.run(parameters={**toy.plan.parameters, "epochs": 9}, shared={"split_seed": 9})
    assert ran(toy) == ALL[:2], "the cache was deleted"


def test_one_failed_point_costs_no_other_and_is_tried_again(toy, folders):
    toy.broken = {
        POINTS[0]: command.NotebookFailed("04 failed in cell 7: boom\nstored there"),
        POINTS[3]: OSError(),
    }
    assert toy.run() == {POINTS[0]: "04 failed in cell 7: boom", POINTS[3]: "OSError()"}
    assert ran(toy) == ALL
    table, text = (folders.runs / "g" / name for name in ("compare.csv", "compare.md"))
    assert pd.read_csv(table)["run"].tolist() == POINTS[1:3]
    assert f"- {POINTS[0]}: 04 failed in cell 7: boom" in text.read_text()
    toy.broken = {}
    assert toy.run() == {} and ran(toy) == [f"04 {POINTS[0]}", f"04 {POINTS[3]}"]
    assert pd.read_csv(table)["run"].tolist() == POINTS and "Failed" not in text.read_text()


def test_where_all_fail_nothing_is_compared(toy, folders):
    toy.broken = dict.fromkeys(POINTS, ValueError("boom"))
    assert set(toy.run().values()) == {"boom"} and not (folders.runs / "g" / "compare.md").exists()


def test_a_shared_notebook_that_failed_is_run_again(toy):
    def execute(notebook, values, folder):
        toy.plan.execute(notebook, values, folder)
        if notebook.stem == "02":
            raise command.NotebookFailed("boom")

    with pytest.raises(command.NotebookFailed):
        toy.run(execute=execute)
    assert ran(toy) == ALL[:2] and toy.run() == {} and ran(toy) == ALL
    with pytest.raises(command.NotebookFailed):
        toy.run(execute=execute, shared={"split_seed": 5})  # leaves another split
    assert ran(toy) == ALL[:2] and toy.run() == {} and ran(toy) == ALL[:2]


def test_a_killed_process_leaves_a_point_to_be_run_again(toy):
    def execute(notebook, values, folder):
        toy.plan.execute(notebook, values, folder)
        if values["run"] == POINTS[1]:
            raise KeyboardInterrupt  # as a kill does: no record, whatever files are there

    with pytest.raises(KeyboardInterrupt):
        toy.run(execute=execute)
    assert ran(toy) == ALL[:4] and toy.run() == {} and ran(toy) == ALL[3:]


def test_a_point_that_another_process_is_running_is_waited_for(toy, folders):
    toy.run()
    folder, found = folders.runs / POINTS[0], []
    done = grid.read_point(folder)
    workspace.write_json(
        folder / "point.json", {key: done[key] for key in ("notebook", "parameters", "split")}
    )
    ran(toy)
    with workspace.locked(folder / "point"):
        waiting = threading.Thread(
            target=lambda: found.append(grid.run_point(POINTS[0], toy.plan.execute))
        )
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        workspace.write_json(folder / "point.json", done)  # the other one ends
    waiting.join(5)
    assert found == [""] and ran(toy) == []


def test_another_image_size_is_another_cache_of_the_same_split(toy, folders, monkeypatch):
    monkeypatch.setattr(
        grid, "build_cache", lambda dataset, split, image_size: {"side": image_size}
    )
    (folders.runs / "g").mkdir(parents=True)
    sized = {"attention": "none", "seed": 42, "image_size": 96}

    def execute(notebook, values, folder):
        toy.plan.execute(notebook, values, folder)
        if notebook.stem == "01":
            workspace.write_json(folder / "dataset.json", {})

    assert toy.run(axes={"image_size": [64, 96]}, parameters=sized, execute=execute) == {}
    for side in (64, 96):
        folder = folders.runs / f"g-image_size={side}"
        assert json.loads((folder / "cache.json").read_text())["side"] == side
        assert (folder / "split.csv").read_bytes() == (
            folders.runs / "g" / "split.csv"
        ).read_bytes()


# from the command line


@pytest.fixture
def series(tmp_path, folders, monkeypatch) -> list[Path]:
    """Toy notebooks in place of 01, 02 and 04, which log that they ran and the parameters that they saw."""
    log = tmp_path / "log"
    log.touch()
    # no torch in their kernels: it takes longer to load than all the rest
    body = {
        "01_toy": "write('dataset.json', {})",
        "02_toy": "(folder / 'split.csv').write_text('image_id,group,source,target\\n' + "
        "''.join(f'i{n},{n},a,{n % 2}\\n' for n in range(40)))\n"
        f"write('cache.json', {{'file': {str(log)!r}}})",
        "04_toy": "if attention == 'sigmoid': raise ValueError('broken')\n"
        "lines = (folder / 'split.csv').read_text().splitlines()\n"
        "(folder / 'predictions.csv').write_text('\\n'.join([lines[0] + ',split,logit', "
        "*(f'{line},test,{n * 7 % 40}' for n, line in enumerate(lines[1:]))]))\n"
        "figures = dict(auc=.6, auc_low=.5, auc_high=.7, ap=.5, n=40, positives=20)\n"
        "write('metrics.json', {'test': figures})\n"
        "for name in ('model.pt', 'history.csv', 'timing.json'): write(name, {})",
    }
    paths = []
    for name, declared in TOY.items():
        cells = [
            nbformat.v4.new_code_cell(declared),
            nbformat.v4.new_code_cell(
                "import json, os, pathlib\nfolder = pathlib.Path(os.environ['ATTENTION_RUNS']) / run\n"
                "def write(name, content): (folder / name).write_text(json.dumps({'format': 1} | content))\n"
                f"with open({str(log)!r}, 'a') as file:\n    print({name!r}, run, os.environ.get('OMP_NUM_THREADS'), "
                f"os.environ.get('CUDA_VISIBLE_DEVICES'), file=file)\n{body[name]}"
            ),
        ]
        cells[0]["metadata"]["tags"] = ["parameters"]
        paths.append(tmp_path / f"{name}.ipynb")
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), paths[-1]
        )
    monkeypatch.setattr(command, "NOTEBOOKS", paths)
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    monkeypatch.chdir(tmp_path)
    return paths


def logged(tmp_path) -> list[list[str]]:
    return [line.split() for line in (tmp_path / "log").read_text().splitlines()]


def test_a_grid_through_papermill(series, folders, tmp_path, capsys):
    command = ["--run", "g", "--grid", "seed=3", "-p", "epochs", "4", "--grid"]
    assert command.main([*command, "attention=sigmoid,none"]) == 1
    names = [f"g-seed=3-attention={one}" for one in ("sigmoid", "none")]
    assert [line[:2] for line in logged(tmp_path)] == [
        ["01_toy", "g"],
        ["02_toy", "g"],
        *(["04_toy", name] for name in names),
    ]
    output = capsys.readouterr()
    assert (
        f"{names[0]} failed: 04_toy.ipynb failed in cell" in output.err
        and "ValueError: broken" in output.err
    )
    assert "Traceback" not in output.err + output.out
    assert (
        f"1 points compared: {folders.runs / 'g' / 'compare.md'}" in output.out
        and "[2/2]" in output.out
    )
    stored = nbformat.read(folders.runs / names[1] / "04_toy.ipynb", 4)
    injected = next(
        cell for cell in stored.cells if "injected-parameters" in cell.metadata.get("tags", [])
    )
    assert "epochs = 4" in injected.source and 'attention = "none"' in injected.source
    assert command.main([*command, "attention=none"]) == 0
    assert len(logged(tmp_path)) == 4, "it was done"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--grid", "atention=softmax"], "did you mean 'attention'"),
        (["--grid", "seed=0,one"], "seed is 'one', expected int"),
        (["--grid", "seed=0,"], "seed is '', expected int"),
        (["--grid", "seed"], "expected NAME=VALUE,VALUE"),
        (["--grid", "seed="], "expected NAME=VALUE,VALUE"),
        (
            ["--grid", "attention=softmax,self"],
            "g-attention=self: attention is 'softmax', 'sigmoid' or 'none'",
        ),
        (
            ["--grid", "attention=sigmoid,none", "-p", "mask_weight_pool3", "0.1"],
            "g-attention=none: attention is 'sigmoid' where",
        ),
        (["--grid", "weights=none,absent.pth"], "weights: there is nothing at"),
        (["--grid", "split_seed=1,2"], "--grid split_seed: a grid varies what 04_toy uses"),
        (["--grid", "run=a,b"], "--grid run: a grid varies"),
        (["--grid", "seed=0,0"], "two points of the grid would be the run 'g-seed=0'"),
        (["--grid", "seed=0", "--grid", "seed=1"], "name seed once"),
        (["--grid", "seed=0,1", "-p", "seed", "1"], "not with -p"),
        (["--grid", "seed=0,1", "--only", "04"], "leave --from, --to and --only out"),
        (["--grid", "seed=0,1", "--workers", "0"], "--workers is at least 1"),
        (
            ["--grid", "seed=0,1", "--workers", "2", "--scheduler", "tcp://x:1"],
            "not beside --scheduler",
        ),
        (["--workers", "2"], "there is no --grid"),
        (["--scheduler", "tcp://x:1"], "there is no --grid"),
        (["--gird", "seed=0"], "no option '--gird'; did you mean --grid?"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    arguments, message, series, tmp_path, folders, capsys
):
    assert command.main(["--run", "g", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err and "Traceback" not in output.err
    assert logged(tmp_path) == [] and not list(folders.runs.rglob("*.*"))


def test_a_grid_needs_a_name_and_takes_the_place_of_a_files_values(series, tmp_path, capsys):
    assert (
        command.main(["--grid", "seed=0"]) == 2
        and "--grid needs --run NAME" in capsys.readouterr().err
    )
    (tmp_path / "mine.yaml").write_text("attention: softmax\nmask_weight_pool3: 0.1\nrun: g\n")
    known = parameters.known_parameters(series)
    values = parameters.read_parameters("mine.yaml", [], known)
    plan = command.read_grid(["attention=sigmoid", "seed=1,2"], values, [], known)
    assert plan.axes == {"attention": ["sigmoid"], "seed": [1, 2]} and plan.name == "g"
    assert plan.parameters["mask_weight_pool3"] == 0.1 and plan.parameters["epochs"] == 8
    assert plan.shared == {"dataset": "sample", "split_seed": 42}


# on Dask


def test_no_scheduler_there(series, tmp_path, capsys):
    assert (
        command.main(["--run", "g", "--grid", "seed=0", "--scheduler", "nonsense://127.0.0.1:1"])
        == 1
    )
    output = capsys.readouterr()
    assert (
        "no Dask scheduler answers at nonsense://127.0.0.1:1" in output.err
        and logged(tmp_path) == []
    )


def test_workers_on_this_machine(series, folders, tmp_path, monkeypatch, capsys):
    """Two workers, each with its share of the cores and a GPU of its own; one point fails, the other does not."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    command = ["--run", "g", "--grid", "attention=softmax,sigmoid", "--workers", "2"]
    started = time.monotonic()
    assert command.main(command) == 1
    lines = logged(tmp_path)
    print(f"\n2 toy points on 2 workers: {time.monotonic() - started:.0f} s")
    assert sorted(line[:2] for line in lines) == [
        ["01_toy", "g"],
        ["02_toy", "g"],
        ["04_toy", "g-attention=sigmoid"],
        ["04_toy", "g-attention=softmax"],
    ]
    assert {tuple(line[2:]) for line in lines[2:]} == {("3", "5"), ("3", "7")}
    assert "g-attention=sigmoid failed: 04_toy.ipynb failed in cell" in capsys.readouterr().err
    assert pd.read_csv(folders.runs / "g" / "compare.csv")["attention"].tolist() == ["softmax"]


def children(workers: list[subprocess.Popen]) -> dict[int, str]:
    """The processes that these workers started for a point, by process id: its name."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "--point" in line and line[-1] in {str(worker.pid) for worker in workers}:
            found[process.pid] = line[-2]
    return found


def kernels(process: int) -> list[psutil.Process]:
    """The notebook kernels that a process has started."""
    return [
        one
        for one in psutil.Process(process).children()
        if "ipykernel_launcher" in " ".join(one.cmdline())
    ]


def wait_for(condition, seconds: float = 120):
    """What the condition returns once it is true; a failure after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers as processes of their own, started where no package of ours can be imported."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ATTENTION_", "PYTHON"))
    }
    processes, file = [], tmp_path / "scheduler.json"
    for kind, options in [
        ("scheduler", ["--port", "0", "--no-dashboard", "--host", "127.0.0.1"]),
        *[("worker", ["--no-nanny", "--nthreads", "1", "--no-dashboard"])] * 2,
    ]:
        place = tmp_path / f"dask-{len(processes)}"
        place.mkdir()
        processes.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    f"distributed.cli.dask_{kind}",
                    *options,
                    "--scheduler-file",
                    str(file),
                ],
                cwd=place,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=(place / "log").open("w"),
            )
        )
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
    yield SimpleNamespace(address=json.loads(file.read_text())["address"], workers=processes[1:])
    for process in processes:
        process.kill()
        process.wait()


def make_shared(notebook: Path, values: dict, folder: Path) -> None:
    """What notebooks 01 and 02 leave, without their kernels."""
    if notebook.stem.startswith("01"):
        found = sources.find_dataset(values["dataset"], masks="auto", split_seed=42)
        workspace.write_json(folder / "dataset.json", found)
        return
    dataset = workspace.read_json(folder / "dataset.json", "01_download.ipynb")
    split = make_split(dataset, benign=values["benign"])
    split.to_csv(folder / "split.csv", index=False)
    cache = build_cache(dataset, split, image_size=values["image_size"])
    workspace.write_json(folder / "cache.json", cache)


def test_a_killed_worker_and_a_killed_command(cluster, folders, tmp_path, monkeypatch):
    """Notebook 04 on 60 photographs, 2x2 points: a worker dies, then the command, which is started again."""
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    make_sample(tmp_path / "small", seed=5, count=60, side=64)
    chosen = {
        "run": "g",
        "dataset": str(tmp_path / "small"),
        "image_size": 64,
        "epochs": 1,
        "benign": 20,
    }
    axes = ["attention=softmax,none", "seed=0,1"]
    known = parameters.known_parameters(parameters.NOTEBOOKS)
    grid.share(command.read_grid(axes, chosen, [], known)._replace(execute=make_shared), print)
    command = [sys.executable, "-m", "helpers.run", "--scheduler", cluster.address]
    command += [part for name, value in chosen.items() for part in ("-p", name, str(value))]
    command += [part for axis in axes for part in ("--grid", axis)]
    starts, stop = {}, threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            starts.update(children(cluster.workers))

    def stamps() -> dict[str, int]:
        return {
            point: (folders.runs / point / "timing.json").stat().st_mtime_ns
            for point in POINTS
            if grid.whole(folders.runs / point)
        }

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, process = (
        time.monotonic(),
        subprocess.Popen(command, cwd=workspace.PROJECT, stdout=subprocess.DEVNULL),
    )
    try:
        both = wait_for(lambda: found if len(found := children(cluster.workers)) == 2 else None)
        victim = cluster.workers[0]
        (orphan,) = [pid for pid in both if psutil.Process(pid).ppid() == victim.pid]
        (kernel,) = wait_for(lambda: kernels(orphan))
        time.sleep(2)  # the middle of a point
        before = stamps()
        victim.kill()
        killed = time.monotonic()
        wait_for(lambda: not psutil.pid_exists(orphan) and not kernel.is_running(), 20)
        print(
            f"\na worker killed after {killed - started:.0f} s in {both[orphan]}, {len(before)} done; "
            f"its notebook ended {time.monotonic() - killed:.1f} s later"
        )
        wait_for(lambda: len(stamps()) >= 2 and children(cluster.workers))
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished = stamps()
        print(f"the command killed after {time.monotonic() - started:.0f} s, {len(finished)} done")
        assert 2 <= len(finished) < 4 and before.items() <= finished.items()
        process = subprocess.Popen(
            command, cwd=workspace.PROJECT, stdout=subprocess.PIPE, text=True
        )
        output = process.communicate(timeout=300)[0]
    finally:
        process.kill()
        stop.set()
        watcher.join()
    print(
        f"all ended after {time.monotonic() - started:.0f} s; starts of each point: {dict(Counter(starts.values()))}"
    )
    assert process.returncode == 0, output
    before = int(
        re.search(r"4 points, (\d) of them done before", output)[1]
    )  # with the one that the worker had begun
    print(f"the second command found {before} done and ran {4 - before}")
    assert len(finished) <= before < 4
    assert len(stamps()) == 4 and finished.items() <= stamps().items(), (
        "none lost, no finished one run again"
    )
    for point in finished:
        if point != both[orphan]:
            assert Counter(starts.values())[point] == 1, point
    assert pd.read_csv(folders.runs / "g" / "compare.csv")["run"].tolist() == POINTS


# the comparison


def test_figures_against_scikit_learn(toy, folders):
    toy.run(axes={"attention": ["softmax", "none", "sigmoid"], "seed": [0, 1, 2]})
    table = pd.read_csv(folders.runs / "g" / "compare.csv")
    assert len(table) == 9 and list(table["setting"].unique()) == [
        f"attention {one}" for one in ("softmax", "none", "sigmoid")
    ]
    logits = {
        run_name: pd.read_csv(folders.runs / run_name / "predictions.csv")
        for run_name in table["run"]
    }
    aucs = {name: roc_auc_score(rows["target"], rows["logit"]) for name, rows in logits.items()}
    assert table["auc"].tolist() == pytest.approx(list(aucs.values()))
    for row in table.itertuples():
        same = [auc for name, auc in aucs.items() if f"={row.attention}-" in name]
        assert (row.seeds, row.auc_mean, row.auc_min, row.auc_max) == pytest.approx(
            (3, sum(same) / 3, min(same), max(same))
        )
        if row.attention == "none":
            assert np.isnan(row.less_attention)
            continue
        control = logits[f"g-attention=none-seed={row.seed}"]
        assert row.less_attention == pytest.approx(
            row.auc - aucs[f"g-attention=none-seed={row.seed}"]
        )
        if row.seed:  # one interval of each is enough: the bootstrap in plain Python is slow
            continue
        draws, rng = [], np.random.default_rng(7)  # groups are pairs of rows 2n, 2n + 1
        for _ in range(500):
            rows = (2 * rng.integers(0, 40, 40)[:, None] + [0, 1]).ravel()
            target = control["target"].to_numpy()[rows]
            draws.append(
                roc_auc_score(target, logits[row.run]["logit"].to_numpy()[rows])
                - roc_auc_score(target, control["logit"].to_numpy()[rows])
            )
        assert [row.less_attention_low, row.less_attention_high] == pytest.approx(
            np.percentile(draws, [2.5, 97.5]), abs=0.04
        )
    found = compare.verdicts(table, "attention").set_index("setting")
    assert found["pairs"].to_dict() == {"attention softmax": 3, "attention sigmoid": 3}
    assert (
        found["above"].to_dict() == {"attention softmax": 3, "attention sigmoid": 3}
        and not found["below"].any()
    )
    softmax = table[table["attention"] == "softmax"]["less_attention"]
    assert found.loc["attention softmax", ["mean", "min", "max"]].tolist() == pytest.approx(
        [softmax.mean(), softmax.min(), softmax.max()]
    )


def test_verdicts_count_whole_intervals_on_one_side():
    table = pd.DataFrame(
        {
            "run": list("abcde"),
            "setting": ["x", "x", "x", "y", "none"],
            "less_gamma": [0.2, 0.1, -0.3, -0.1, np.nan],
            "less_gamma_low": [0.1, -0.1, -0.4, -0.2, np.nan],
            "less_gamma_high": [0.3, 0.3, -0.2, 0.0, np.nan],
        }
    )
    found = compare.verdicts(table, "gamma").to_dict("records")
    assert [list(one.values()) for one in found] == [
        ["x", 3, pytest.approx(0), -0.3, 0.2, 1, 1],
        ["y", 1, -0.1, -0.1, -0.1, 0, 0],
    ]


def test_what_is_written_for_a_reader(toy, folders):
    toy.run()
    text = (folders.runs / "g" / "compare.md").read_text()
    assert (
        "80 photographs, 20 melanomas" in text
        and "Up to 2 runs a setting" in text
        and "no p-value" in text
    )
    assert "## Less the run with attention none" in text and "| attention softmax | 2 |" in text
    for point in POINTS:
        assert f"| {point} |" in text
    with Image.open(folders.runs / "g" / "figures" / "compare.png") as figure:
        assert figure.format == "PNG" and figure.width > 1000


def test_each_parameter_has_its_own_control_and_seeds_are_paired(toy, folders):
    toy.run(axes={"attention": ["softmax", "none"], "gamma": [0.0, 2.0], "seed": [1, 0]})
    table = pd.read_csv(folders.runs / "g" / "compare.csv").set_index("run")
    assert table["less_gamma"].notna().sum() == 4 == table["less_attention"].notna().sum()
    one, other = (
        table.loc["g-attention=none-gamma=2.0-seed=0"],
        table.loc["g-attention=none-gamma=0.0-seed=0"],
    )
    assert one["less_gamma"] == pytest.approx(one["auc"] - other["auc"]) and np.isnan(
        other["less_gamma"]
    )
    assert one["setting"] == "attention none, gamma 2.0" and one["seeds"] == 2


def test_without_seeds_or_a_control_it_says_so(toy, folders):
    toy.run(axes={"epochs": [8, 9]})
    text = (folders.runs / "g" / "compare.md").read_text()
    assert "One run a setting" in text and "no differences" in text and "## Less" not in text
    toy.run(axes={"seed": [0, 1]})
    assert pd.read_csv(folders.runs / "g" / "compare.csv")["setting"].tolist() == ["all", "all"]
    toy.broken = {"g-attention=none": ValueError("boom")}
    toy.run(axes={"attention": ["softmax", "none", "sigmoid"]})
    assert "no differences" in (folders.runs / "g" / "compare.md").read_text()
