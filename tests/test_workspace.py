"""Folders, device, precision, seeds, and files that are written whole or not at all."""

import errno
import json
import os
import random
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from helpers import workspace


def test_folders_follow_the_environment_and_default_to_the_project(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTENTION_DATA", str(tmp_path / "photographs"))
    monkeypatch.setenv("ATTENTION_RUNS", str(tmp_path / "mine"))
    assert workspace.data_folder() == tmp_path / "photographs"
    assert workspace.run_folder("seed-1") == tmp_path / "mine" / "seed-1"
    assert (tmp_path / "mine" / "seed-1").is_dir()
    monkeypatch.setenv("ATTENTION_DATA", "")
    assert workspace.data_folder() == workspace.PROJECT / "data"


def test_project_is_the_folder_above_the_helpers():
    assert (workspace.PROJECT / "helpers" / "workspace.py").is_file()


def test_folders_are_absolute_and_understand_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ATTENTION_DATA", "~/data")
    monkeypatch.setenv("ATTENTION_RUNS", "~/runs")
    assert workspace.data_folder() == tmp_path / "data"
    assert workspace.run_folder("a") == tmp_path / "runs" / "a"
    assert workspace.resolve("~/x.csv") == tmp_path / "x.csv"


@pytest.mark.parametrize("run", ["", ".", "..", "../other", "a/b", "/tmp/a", "a/", "a/.."])
def test_run_names_that_would_leave_the_folder_are_refused(run, monkeypatch, tmp_path):
    monkeypatch.setenv("ATTENTION_RUNS", str(tmp_path / "runs"))
    with pytest.raises(ValueError, match="name of one folder"):
        workspace.run_folder(run)
    assert list(tmp_path.iterdir()) == []


def test_resolve_starts_at_the_project_whatever_the_working_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert workspace.resolve("data/README.md") == workspace.PROJECT / "data" / "README.md"
    assert workspace.resolve("notebooks/../data") == workspace.PROJECT / "data"
    assert workspace.resolve(tmp_path / "set.zip") == tmp_path / "set.zip"


@pytest.mark.parametrize("value, expected", [("1", True), ("0", False), ("", False)])
def test_headless(value, expected, monkeypatch):
    monkeypatch.setenv("ATTENTION_HEADLESS", value)
    assert workspace.headless() is expected


@pytest.mark.parametrize("value, shown", [("1", False), ("0", True)])
def test_a_bar_is_there_where_somebody_watches_and_the_items_everywhere(
    value, shown, monkeypatch, capsys
):
    monkeypatch.setenv("ATTENTION_HEADLESS", value)
    assert list(workspace.progress("measured", iter("abc"), 3)) == ["a", "b", "c"]
    assert ("measured" in capsys.readouterr().err) == shown


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends to have so many CUDA devices, and MPS or not."""

    def pretend(*, cuda: int, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    "cuda, mps, expected", [(1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_cuda_then_mps_then_cpu(cuda, mps, expected, machine):
    machine(cuda=cuda, mps=mps)
    assert workspace.choose_device().type == expected
    assert workspace.choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:0", "gpu", "", "CPU"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device, machine):
    machine(cuda=0, mps=False)
    with pytest.raises(ValueError, match="'auto' or one of: cpu$"):
        workspace.choose_device(device)


def test_numbered_devices(machine):
    machine(cuda=2, mps=False)
    assert workspace.choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="cuda, cuda:0, cuda:1, cpu"):
        workspace.choose_device("cuda:2")


@pytest.mark.parametrize(
    "capability, expected", [((7, 5), torch.float16), ((8, 0), torch.bfloat16)]
)
def test_auto_precision_on_cuda(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert workspace.choose_precision(torch.device("cuda")) is expected


@pytest.mark.parametrize(
    "able, expected",
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx2": True}, torch.float32),
    ],
)
def test_auto_precision_on_the_cpu(able, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert workspace.choose_precision(torch.device("cpu")) is expected


def test_auto_precision_elsewhere_and_on_a_torch_without_capabilities(monkeypatch):
    assert workspace.choose_precision(torch.device("mps")) is torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert workspace.choose_precision(torch.device("cpu")) is torch.float32


def test_precision_by_name():
    cpu = torch.device("cpu")
    names = workspace.PRECISIONS
    assert {name: workspace.choose_precision(cpu, name) for name in names} == names
    with pytest.raises(ValueError, match="'auto' or one of fp32, bf16, fp16, not 'float32'"):
        workspace.choose_precision(cpu, "float32")


@pytest.mark.parametrize(
    "able, imitated",
    [
        ({"avx2": True}, {"bf16", "fp16"}),
        ({"amx_bf16": True}, {"fp16"}),
        ({"avx512_bf16": True, "avx512_fp16": True}, set()),
    ],
)
def test_what_a_processor_imitates_is_told_once_where_it_was_asked_for(
    able, imitated, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    workspace.say_what_it_costs.cache_clear()
    for precision in ("auto", "fp32", "bf16", "fp16", "bf16", "fp16"):
        workspace.choose_precision(torch.device("cpu"), precision)
    workspace.say_what_it_costs.cache_clear()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(imitated) and all("fp32" in line for line in said)
    assert {name for name in ("bf16", "fp16") if f"'{name}'" in "".join(said)} == imitated


@pytest.mark.parametrize("capability, refused", [((7, 5), True), ((8, 0), False), ((9, 0), False)])
def test_bf16_asked_for_on_a_gpu_needs_one_that_has_it(capability, refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    cuda = torch.device("cuda")
    assert workspace.choose_precision(cuda, "fp16") is torch.float16
    if not refused:
        assert workspace.choose_precision(cuda, "bf16") is torch.bfloat16
        return
    with pytest.raises(ValueError, match=r"7\.5.*8\.0.*'fp16'"):
        workspace.choose_precision(cuda, "bf16")


def test_only_to_cuda_is_a_tensor_sent_without_waiting(monkeypatch):
    """MPS may read memory that Python has freed."""
    sent = []
    tensor = torch.ones(1)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, device, non_blocking: sent.append(non_blocking)
    )
    for kind in ("cuda", "mps", "cpu"):
        workspace.send(tensor, torch.device(kind))
    assert sent == [True, False, False]


def test_seeds_reach_python_numpy_and_torch():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    workspace.seed_everything(3)
    first = draw()
    workspace.seed_everything(3)
    second = draw()
    workspace.seed_everything(4)
    assert first == second
    assert all(a != b for a, b in zip(first, draw(), strict=True))


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path):
    path = tmp_path / "new" / "split.csv"
    with workspace.replacing(path) as beside:
        assert beside.parent == path.parent and beside.suffix == ".csv"
        beside.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_crash_leaves_the_old_file_and_nothing_beside_it(error, tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("old")
    with pytest.raises(error), workspace.replacing(path) as beside:
        beside.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_deleted_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    killed = "import os, sys; from pathlib import Path; from helpers import workspace\n" + (
        "with workspace.replacing(Path(sys.argv[1])) as beside:\n"
        "    beside.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(path)], cwd=workspace.PROJECT)
    (left,) = tmp_path.iterdir()
    dead = re.fullmatch(r"\.table\.(.+)\.(\d+)\.(\w+)\.csv", left.name)
    machine, number = dead[1], dead[2]
    others = {
        left.name.replace(number, str(os.getppid())): "one that still runs",
        left.name.replace(
            machine, "another-machine"
        ): "on a shared disk, whose processes we cannot see",
        ".table.mine.csv": "a reader's own",
    }
    for name, whose in others.items():
        (tmp_path / name).write_text(whose)
    (tmp_path / left.name.replace("table", "other")).write_text("of another file, dead as well")
    with workspace.replacing(path) as beside:
        beside.write_text("whole")
    assert {file.name for file in tmp_path.iterdir()} == {"table.csv", *others}


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    path = tmp_path / "table.csv"
    inside = threading.Barrier(4)

    def write(text: str) -> None:
        with workspace.replacing(path) as beside:
            beside.write_text(text)
            inside.wait()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    assert path.read_text() in "abcd" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_is_as_readable_as_any_other_of_its_writer(tmp_path):
    (tmp_path / "plain").write_text("")
    with workspace.replacing(tmp_path / "table.csv") as beside:
        beside.write_text("")
    modes = {(tmp_path / name).stat().st_mode for name in ("plain", "table.csv")}
    assert len(modes) == 1


def test_a_file_elsewhere_that_cannot_be_read_is_not_called_unwritable(tmp_path):
    elsewhere = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/photograph.jpg")
    with (
        pytest.raises(PermissionError) as raised,
        workspace.saying_what_to_do(tmp_path / "a" / "b"),
    ):
        raise elsewhere
    assert raised.value is elsewhere
    for there in (tmp_path / "a" / "b", tmp_path / "a" / ".b.part", tmp_path):
        with (
            pytest.raises(workspace.CannotWrite),
            workspace.saying_what_to_do(tmp_path / "a" / "b"),
        ):
            raise PermissionError(errno.EACCES, "Permission denied", str(there))


def test_json_there_and_back(tmp_path):
    path = tmp_path / "cache.json"
    content = {"side": 109, "rows": ["a", "\u00e4"]}
    workspace.write_json(path, content)
    assert workspace.read_json(path, "02_preprocess.ipynb") == {
        "format": workspace.FORMAT,
        **content,
    }


@pytest.mark.parametrize(
    "content", [{"format": workspace.FORMAT + 1}, {"format": "old"}, {"side": 109}]
)
def test_another_format_is_refused_by_name(content, tmp_path):
    path = tmp_path / "cache.json"
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError,
        match=f"cache.json has format {content.get('format')}, expected {workspace.FORMAT}: "
        "run 02_preprocess.ipynb again",
    ):
        workspace.read_json(path, "02_preprocess.ipynb")


def test_a_missing_file_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"dataset\.json is not in .*: run 01_download\.ipynb first"
    ):
        workspace.read_json(tmp_path / "dataset.json", "01_download.ipynb")
    (tmp_path / "split.csv").touch()
    assert workspace.need(tmp_path / "split.csv", "02_preprocess.ipynb") == tmp_path / "split.csv"
