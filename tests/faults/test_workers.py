"""A grid in several processes: one is killed, the command is stopped, a worker of Dask dies.

Real kernels, whose notebooks wait until they are told to end.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

from helpers import workspace
from helpers.runs import workers
from tests.conftest import PATIENCE
from tests.runs.toys import write_notebook

HERE = """
import json, os, pathlib, time
folder = pathlib.Path(os.environ['ATTENTION_RUNS']) / run
def write(name, content):
    (folder / name).write_text(json.dumps({'format': 1} | content))
"""
SHARES = """
write('dataset.json', {})
(folder / 'split.csv').write_text('image_id,group,source,target\\na,1,s,0\\n')
write('cache.json', {'file': str(folder)})
"""
# a point says that it has begun, waits for as long as there is a file `wait`, and logs its end
POINT = """
(folder / 'begun').write_text(str(os.getppid()))
while (folder.parent / 'wait').exists():
    time.sleep(0.1)
figures = dict(auc=.6, auc_low=.5, auc_high=.7, ap=.5, n=40, positives=20)
write('metrics.json', {'test': figures})
for left in ('model.pt', 'history.csv', 'timing.json', 'predictions.csv'): write(left, {})
with (folder.parent / 'log').open('a') as file: print(run, file=file)
"""
# `python -m helpers.run` with the notebooks of a folder in place of the series
PROGRAM = """
import pathlib, sys
from helpers.runs import command
command.NOTEBOOKS = sorted(pathlib.Path(sys.argv[1]).glob('0*.ipynb'))
sys.exit(command.main(sys.argv[2:]))
"""
NAMES = ["g-seed=0", "g-seed=1", "g-seed=2"]
ARGUMENTS = ["--run", "g", "--grid", "seed=0,1,2"]


@pytest.fixture
def notebooks(tmp_path, folders) -> Path:
    """Toy notebooks in place of 01, 02 and 04; the points wait."""
    place = tmp_path / "notebooks"
    declared = "run: str = 'sample'  # r\nseed: int = 0  # s"
    write_notebook(place / "01_toy.ipynb", declared, HERE)
    write_notebook(place / "02_toy.ipynb", declared, HERE + SHARES)
    write_notebook(place / "04_toy.ipynb", declared, HERE + POINT)
    folders.runs.mkdir()
    (folders.runs / "wait").touch()
    return place


@pytest.fixture
def start(notebooks):
    """Starts the command on the toy notebooks; what is left of it at the end of a test is ended."""
    processes = []

    def start(*arguments: str) -> subprocess.Popen:
        processes.append(start_command(notebooks, *arguments))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


def start_command(notebooks: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(notebooks), *ARGUMENTS, *arguments],
        env={**os.environ, "PYTHONPATH": str(workspace.PROJECT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a group of its own, as a terminal gives it
    )


def wait_for(condition: Callable):
    """What the condition returns once it is true."""
    for _ in range(10 * PATIENCE):
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def begun(process: subprocess.Popen, folders, count: int) -> dict[str, int]:
    """The process that runs each point that has begun, once there are so many."""

    def read() -> dict[str, int]:
        assert process.poll() is None, process.communicate()
        files = folders.runs.glob("*/begun")
        pids = {file.parent.name: int(file.read_text() or 0) for file in files}
        return pids if len(pids) == count and all(pids.values()) else {}

    return wait_for(read)


def ended(folders) -> Counter:
    """How often each point ended."""
    file = folders.runs / "log"
    return Counter(file.read_text().split() if file.exists() else [])


def test_the_points_of_a_killed_process_are_run_by_others(start, folders):
    process = start("--workers", "2")
    pids = begun(process, folders, 2)
    victim = psutil.Process(next(iter(pids.values())))
    kernels = victim.children(recursive=True)
    assert kernels and len(set(pids.values())) == 2
    for name in pids:
        (folders.runs / name / "begun").unlink()
    victim.kill()
    begun(process, folders, 2)
    (folders.runs / "wait").unlink()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "[3/3]" in out, err
    assert sorted(ended(folders)) == NAMES
    _, alive = psutil.wait_procs(kernels, timeout=PATIENCE)
    assert not alive, "the kernel of a killed process ends too"
    assert pd.read_csv(folders.runs / "g" / "compare.csv")["run"].tolist() == NAMES


def kill_itself(point: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


@pytest.mark.long
def test_points_that_always_kill_their_process_fail_with_what_the_system_says(monkeypatch):
    monkeypatch.setattr(workers, "POOLS", 2)
    with workers.chosen(2, "") as spread:
        reasons = dict(spread(kill_itself, ["a", "b"]))
    assert set(reasons) == {"a", "b"}
    assert all("SIGKILL" in reason for reason in reasons.values()), reasons


@pytest.mark.long
@pytest.mark.parametrize("to", ["command", "terminal", "scheduler", "nobody asked"])
def test_a_stopped_command_leaves_no_process_and_goes_on(to, start, folders):
    process = start("--workers", "2")
    begun(process, folders, 2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("ipykernel" in " ".join(child.cmdline()) for child in children)
    if to == "terminal":  # Ctrl-C goes to all that the terminal started
        os.killpg(process.pid, signal.SIGINT)
    else:
        blow = {"command": signal.SIGINT, "scheduler": signal.SIGTERM}.get(to, signal.SIGKILL)
        process.send_signal(blow)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == (-9 if to == "nobody asked" else 130), err
    assert "Traceback" not in err, err
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert not alive, [child.cmdline() for child in alive]
    assert not ended(folders)
    (folders.runs / "wait").unlink()
    again = start("--workers", "2")
    out, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0 and ended(folders) == dict.fromkeys(NAMES, 1), err


# a Dask cluster, which the project does not install


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers, started where no package of ours can be imported."""
    pytest.importorskip("distributed", reason="a reader's own cluster; pip install distributed")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ATTENTION_", "PYTHON"))
    }
    file = tmp_path / "scheduler.json"
    processes = []
    for kind, options in [
        ("scheduler", ["--port", "0", "--host", "127.0.0.1"]),
        ("worker", ["--no-nanny", "--nthreads", "1"]),
        ("worker", ["--no-nanny", "--nthreads", "1"]),
    ]:
        place = tmp_path / f"dask-{len(processes)}"
        place.mkdir()
        program = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard"]
        process = subprocess.Popen(
            [*program, "--scheduler-file", str(file), *options],
            cwd=place,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        processes.append(process)
        wait_for(lambda: file.exists() and '"address"' in file.read_text())
    address = json.loads(file.read_text())["address"]
    yield SimpleNamespace(address=address, workers=processes[1:])
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.long
def test_a_killed_worker_of_a_cluster_costs_its_point_only(cluster, start, folders):
    process = start("--scheduler", cluster.address)
    pids = begun(process, folders, 2)
    assert set(pids.values()) == {worker.pid for worker in cluster.workers}
    (name,) = [name for name, pid in pids.items() if pid == cluster.workers[0].pid]
    kernels = psutil.Process(pids[name]).children()
    cluster.workers[0].kill()
    cluster.workers[0].wait()
    (folders.runs / "wait").unlink()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "[3/3]" in out, err
    _, alive = psutil.wait_procs(kernels, timeout=PATIENCE)
    assert not alive, "the kernel of a killed worker ends too"
    assert sorted(ended(folders)) == NAMES
    assert pd.read_csv(folders.runs / "g" / "compare.csv")["run"].tolist() == NAMES
