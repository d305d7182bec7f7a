"""Where things lie and what the machine offers: folders, device, precision, seeds, files never half written.

Every other module asks here instead of naming a folder or a device of its own.
"""

import errno
import glob
import json
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from filelock import FileLock, Timeout

from helpers import hosts

PROJECT = hosts.PROJECT
FORMAT = (
    1  # of the files that a run leaves; raised when a reader of the old ones would misread the new
)
UNWRITABLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is used up",
    errno.EFBIG: "the file may not grow so large",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.ENOTDIR: "what should be a folder is a file",
}


class CannotWrite(OSError):
    """A place cannot be written; the message says why and what to do."""


def data_folder() -> Path:
    """Where photographs and caches go: the folder that ATTENTION_DATA names, the host's own, or `data/` here."""
    return Path(os.environ.get("ATTENTION_DATA") or hosts.folder("data")).expanduser().resolve()


def run_folder(run: str) -> Path:
    """The folder of a run, created: below the folder that ATTENTION_RUNS names, the host's own, or `runs/`.

    Raises ValueError for a name that would leave that folder, CannotWrite where the folder cannot be made or written.
    """
    if not run or run != Path(run).name or run in (".", ".."):
        raise ValueError(
            f"run is the name of one folder, such as 'sample' or 'seed-1', not {run!r}"
        )
    folder = (
        Path(os.environ.get("ATTENTION_RUNS") or hosts.folder("runs")).expanduser().resolve() / run
    )
    with saying_what_to_do(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return folder


def resolve(path: str | Path) -> Path:
    """An absolute path: `~` is the home folder, a relative path starts at the project's root."""
    path = Path(path).expanduser()
    return (path if path.is_absolute() else PROJECT / path).resolve()


def headless() -> bool:
    """True where nobody watches: progress bars and widgets give way to lines and still figures."""
    return (
        os.environ.get("ATTENTION_HEADLESS") == "1"
        or os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch"
    )


def choose_device(device: str = "auto") -> torch.device:
    """The device to compute on; "auto" takes CUDA, then MPS, then CPU. Raises ValueError if `device` is not there."""
    there = ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    there = there if torch.cuda.is_available() else []
    there += ["mps"] if torch.backends.mps.is_available() else []
    there += ["cpu"]
    if device == "auto":
        return torch.device(there[0])
    if device not in there:
        raise ValueError(
            f"device {device!r} is not available here; set device to 'auto' or one of: {', '.join(there)}"
        )
    return torch.device(device)


def choose_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The type of the network's arithmetic; "auto": bf16 where the chip is fast at it, fp16 on older GPUs, else fp32.

    "fp32", "bf16" and "fp16" are taken as they are. Raises ValueError for anything else.
    """
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision != "auto":
        if precision not in types:
            raise ValueError(f"precision is 'auto' or one of {', '.join(types)}, not {precision!r}")
        return types[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    able = (
        torch.cpu.get_capabilities()
        if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities")
        else {}
    )
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def saying_what_to_do(path: Path) -> Iterator[None]:
    """Turn the system's word that `path` cannot be written into a sentence that says why, and what to do."""
    try:
        yield
    except (
        OSError,
        RuntimeError,
    ) as error:  # torch.save tells of a full disk by a RuntimeError around it
        said = error if isinstance(error, OSError) else error.__context__
        if (
            isinstance(said, CannotWrite)
            or not isinstance(said, OSError)
            or said.errno not in UNWRITABLE
        ):
            raise
        variable = "ATTENTION_DATA" if data_folder() in (path, *path.parents) else "ATTENTION_RUNS"
        raise CannotWrite(
            f"{path} cannot be written: {UNWRITABLE[said.errno]}. What was there before is as it was. "
            f"Make room, or set {variable} to a folder that has it and is yours"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: yields a path beside `path`, renamed onto it when the block ends well.

    What a killed process left of the same file is deleted. Raises CannotWrite.
    """
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    with saying_what_to_do(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(
            glob.escape(f".{path.stem}.") + "*" + glob.escape(path.suffix)
        ):
            writer = left.name[len(path.stem) + 2 : len(left.name) - len(path.suffix)]
            if writer.isdigit() and not psutil.pid_exists(int(writer)):
                left.unlink(missing_ok=True)
        try:
            yield beside
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold what is made at `path` against other processes, which say so and wait; for as long as the block lasts."""
    with saying_what_to_do(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(
                f"another process is writing {path}: this one goes on when that is done", flush=True
            )
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, content: dict) -> None:
    """Write `as_json` of `content`, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(as_json(content), encoding="utf-8")


def as_json(content: dict) -> str:
    """`content` and the format's version."""
    return json.dumps({"format": FORMAT, **content}, indent=2) + "\n"


def read_json(path: Path, notebook: str) -> dict:
    """What `write_json` wrote. Raises as `need` does, and ValueError for another format's version."""
    content = json.loads(need(path, notebook).read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {content.get('format')}, expected {FORMAT}: run {notebook} again"
        )
    return content


def need(path: Path, notebook: str) -> Path:
    """`path` if it exists. Raises FileNotFoundError that names the notebook which makes it."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path.name} is not in {path.parent}: run {notebook} first (with the same `run`), or "
            "it and those before it from a cell of your own: import helpers.run; "
            f"helpers.run.main(['--run', '{path.parent.name}', '--to', '{notebook[:2]}'])"
        )
    return path


def read_table(path: Path, notebook: str, columns: Sequence[str]) -> pd.DataFrame:
    """A csv that a notebook left, ids and sources as text. Raises as `need`, and ValueError for absent columns."""
    table = pd.read_csv(
        need(path, notebook), dtype={"image_id": str, "source": str}, keep_default_na=False
    )
    absent = [name for name in columns if name not in table]
    if absent:
        raise ValueError(
            f"{path} has the columns {', '.join(table)}; expected {', '.join(absent)} too, as this "
            f"version of the series writes it: run {notebook} again"
        )
    return table
