"""Disks that refuse, fail or drop out: a way on, or a sentence with the place and what to do.

No disk here does so by itself: what the system would say of one is put in its mouth. Full disks
and those that may not be written are real, in test_server.py, test_training.py and
test_notebooks.py.
"""

import errno
import fcntl
import mmap
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from helpers import workspace
from helpers.photographs import cache, reading, sample, sources
from helpers.photographs.split import make_split
from helpers.runs import train

GONE = ("EIO", "ENXIO", "ENODEV", "ENOTCONN", "ESTALE", "EREMOTEIO", "EHOSTDOWN", "ETIMEDOUT")
NO_LOCKS = [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, 524]


def refusing(number: int, *, when=lambda *arguments: True, plain=None, named: bool = False):
    """A stand-in that answers with an error of the system, or as `plain` does."""

    def answer(*arguments, **options):
        if when(*arguments):
            names = [str(arguments[0])] if named else []
            raise OSError(number, os.strerror(number), *names)
        return plain(*arguments, **options)

    return answer


# writing


@pytest.mark.parametrize("number", [getattr(errno, name) for name in GONE])
@pytest.mark.parametrize("variable", ["ATTENTION_DATA", "ATTENTION_RUNS"])
def test_a_disk_that_fails_while_writing_is_named_with_its_variable(number, variable, folders):
    path = Path(os.environ[variable]) / "r" / "metrics.json"
    workspace.write_json(path, {"auc": 1})
    with pytest.raises(workspace.CannotWrite) as raised, workspace.replacing(path) as beside:
        beside.write_text("half")
        raise OSError(number, os.strerror(number))
    for fact in (str(path), os.strerror(number), f"set {variable}"):
        assert fact in str(raised.value)
    assert workspace.read_json(path, "04_train.ipynb")["auc"] == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_place_that_no_variable_moves_names_none(folders, tmp_path):
    with pytest.raises(workspace.CannotWrite) as raised, workspace.replacing(tmp_path / "a.csv"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert "ATTENTION" not in str(raised.value) and str(tmp_path / "a.csv") in str(raised.value)


def test_a_disk_that_fills_under_the_sample_is_named_and_nothing_is_left(folders, monkeypatch):
    """Formerly the system's own words came through: [Errno 28] No space left on device."""
    folder = sample.sample_folder(3)
    full = refusing(errno.ENOSPC, when=lambda file, *_: file.suffix == ".jpg")
    monkeypatch.setattr(Path, "write_bytes", full)
    told = pytest.raises(workspace.CannotWrite, match=f"{folder.name}.*full.*set ATTENTION_DATA")
    with told:
        sample.make_sample(folder, count=40, side=32)
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_that_lets_nothing_be_renamed_is_told(number, folders, monkeypatch):
    path = workspace.run_folder("r") / "split.csv"
    monkeypatch.setattr(os, "replace", refusing(number, named=True))
    told = pytest.raises(workspace.CannotWrite, match="split.csv.*set ATTENTION_RUNS")
    with told, workspace.replacing(path) as beside:
        beside.write_text("whole")
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("times, comes", [(2, True), (9, False)])
def test_a_file_that_another_program_holds_is_waited_for_a_moment(
    times, comes, folders, monkeypatch
):
    path = workspace.run_folder("r") / "split.csv"
    waited = []
    monkeypatch.setattr(workspace.time, "sleep", waited.append)
    busy = refusing(errno.EBUSY, when=lambda *_: len(waited) < times, plain=os.replace)
    monkeypatch.setattr(os, "replace", busy)
    try:
        with workspace.replacing(path) as beside:
            beside.write_text("whole")
    except workspace.CannotWrite:
        assert not comes
    assert path.exists() == comes and waited


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_that_cannot_be_told_to_keep_bytes_keeps_them(number, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(number))
    with workspace.replacing(tmp_path / "a.csv") as beside:
        beside.write_text("whole")
    assert (tmp_path / "a.csv").read_text() == "whole"


def test_bytes_that_did_not_reach_the_disk_do_not_replace_what_did(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("old")
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(workspace.CannotWrite), workspace.replacing(tmp_path / "a.csv") as beside:
        beside.write_text("new")
    assert (tmp_path / "a.csv").read_text() == "old"


def test_what_another_user_left_half_written_is_no_hindrance(tmp_path, monkeypatch):
    """In a folder that several share, where nobody may delete another's files."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    machine = workspace.re.sub(r"\W", "-", workspace.platform.node())[:40]
    left = tmp_path / f".a.{machine}.{ended.pid}.abcdef.csv"
    left.write_text("half")
    plain = Path.unlink
    theirs = refusing(errno.EPERM, when=lambda path, *_: path == left, plain=plain)
    monkeypatch.setattr(Path, "unlink", theirs)
    with workspace.replacing(tmp_path / "a.csv") as beside:
        beside.write_text("whole")
    assert {file.name for file in tmp_path.iterdir()} == {left.name, "a.csv"}


# locks


@pytest.fixture(params=NO_LOCKS)
def no_locks(request, monkeypatch):
    """A disk that refuses the system's locks."""
    workspace.knows_locks.cache_clear()
    monkeypatch.setattr(fcntl, "flock", refusing(request.param))
    yield
    workspace.knows_locks.cache_clear()


def test_without_the_system_s_locks_a_file_stands_for_one(no_locks, tmp_path, capsys):
    order = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with workspace.locked(tmp_path / "set"):
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with workspace.locked(tmp_path / "set"):
        inside.set()
        other.join(0.2)  # it cannot end; a moment to try
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    said = capsys.readouterr().out
    assert said.count("knows no locks") == 1 and str(tmp_path) in said
    assert list(tmp_path.iterdir()) == []


HOLD = """
import fcntl, os, sys
from pathlib import Path
from helpers import workspace
def refuse(*words): raise OSError(37, "no locks")
fcntl.flock = refuse
with workspace.locked(Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""


def test_such_a_file_of_a_killed_process_holds_nobody_up(tmp_path, monkeypatch):
    path = tmp_path / "set"
    subprocess.run([sys.executable, "-c", HOLD, str(path)], cwd=workspace.PROJECT)
    assert [file.name for file in tmp_path.iterdir()] == [".set.busy"]
    workspace.knows_locks.cache_clear()
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    with workspace.locked(path):
        pass
    workspace.knows_locks.cache_clear()


def test_a_lock_that_fails_for_another_reason_is_no_lock_that_is_missing(folders, monkeypatch):
    workspace.knows_locks.cache_clear()
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    told = pytest.raises(workspace.CannotWrite, match="set ATTENTION_RUNS")
    with told, workspace.locked(folders.runs / "r" / "results"):
        pass


# reading


@pytest.fixture
def prepared(tiny, folders) -> SimpleNamespace:
    """A data set, its split and its cache."""
    found = sources.find_dataset(str(tiny))
    split = make_split(found)
    return SimpleNamespace(
        found=found, split=split, cache=cache.build_cache(found, split, image_size=32)
    )


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL, errno.ENOSYS])
def test_on_a_disk_without_memory_maps_the_cache_is_read(number, prepared, monkeypatch, capsys):
    expected = np.array(cache.open_cache(prepared.cache["file"]))
    monkeypatch.setattr(mmap, "mmap", refusing(number))
    pixels = cache.open_cache(prepared.cache["file"])
    assert pixels.dtype == np.uint8 and (pixels == expected).all()
    assert prepared.cache["file"] in capsys.readouterr().out
    made = os.stat(prepared.cache["file"])
    cache.build_cache(prepared.found, prepared.split, image_size=32)
    assert os.stat(prepared.cache["file"]).st_mtime_ns == made.st_mtime_ns, "it is not built again"


def test_a_cache_that_fits_neither_map_nor_memory_names_the_remedy(prepared, monkeypatch):
    monkeypatch.setattr(mmap, "mmap", refusing(errno.ENODEV))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(workspace.CannotRead, match="ATTENTION_DATA"):
        cache.open_cache(prepared.cache["file"])


@pytest.mark.parametrize("number", [getattr(errno, name) for name in GONE])
def test_a_photograph_on_a_failing_disk_is_not_called_damaged(number, tiny, folders, monkeypatch):
    """Neither refused as damaged, nor left out of the data set as one of few."""
    path = next(tiny.rglob("512x512-dataset*/*/SAMPLE*.jpg"))
    plain = Path.read_bytes
    failing = refusing(number, when=lambda file: file == path, plain=plain)
    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(workspace.CannotRead) as raised:
        sources.find_dataset(str(tiny), unusable=0.5)
    assert str(path) in str(raised.value) and os.strerror(number) in str(raised.value)


def test_too_many_open_files_are_no_damage(tiny):
    """The limit is this process's own."""
    path = next(tiny.rglob("512x512-dataset*/*/SAMPLE*.jpg"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 8, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(workspace.CannotRead, match="ulimit"):
            reading.read_bytes(path)
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert reading.read_bytes(path)


@pytest.mark.parametrize("at", ["", "512x512-dataset-melanoma"])
def test_a_folder_that_has_dropped_out_is_not_called_empty(at, tiny, folders, monkeypatch):
    place = str(tiny / at) if at else str(tiny)
    plain = os.scandir
    stale = refusing(errno.ESTALE, when=lambda path: str(path) == place, plain=plain, named=True)
    monkeypatch.setattr(os, "scandir", stale)
    with pytest.raises(workspace.CannotRead, match=place):
        sources.find_dataset(str(tiny))


def test_a_part_that_may_not_be_listed_is_passed_over(tiny, folders, monkeypatch):
    """Such as lost+found, and folders of another user beside one's own."""
    place = str(tiny / "512x512-test")
    plain = os.scandir
    closed = refusing(errno.EACCES, when=lambda path: str(path) == place, plain=plain, named=True)
    monkeypatch.setattr(os, "scandir", closed)
    assert sources.find_dataset(str(tiny))["rows"] == 40


def test_a_cache_on_a_failing_disk_is_not_built_again(prepared, monkeypatch):
    file = Path(prepared.cache["file"])
    plain = Path.open
    failing = refusing(errno.EIO, when=lambda path, *_: path == file, plain=plain, named=True)
    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(workspace.CannotRead, match="set ATTENTION_DATA"):
        cache.build_cache(prepared.found, prepared.split, image_size=32)
    monkeypatch.undo()
    assert cache.open_cache(str(file)).shape[0] == len(prepared.cache["rows"])


def test_a_run_on_a_disk_that_has_dropped_out_ends_the_command_with_the_sentence(
    folders, monkeypatch, capsys
):
    path = workspace.run_folder("r") / "dataset.json"
    workspace.write_json(path, {"rows": 1})
    plain = Path.read_bytes
    gone = refusing(errno.ENOTCONN, when=lambda file: file == path, plain=plain, named=True)
    monkeypatch.setattr(Path, "read_bytes", gone)
    with pytest.raises(workspace.CannotRead, match="set ATTENTION_RUNS"):
        workspace.read_json(path, "01_download.ipynb")
    (path.parent / "split.csv").touch()
    (path.parent / "cache.json").touch()
    monkeypatch.setattr(Path, "read_bytes", refusing(errno.ENOTCONN, named=True))
    assert train.main(["--run", "r"]) == 1
    assert "set ATTENTION_RUNS" in capsys.readouterr().err
