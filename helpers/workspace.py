"""Where things lie and what the machine offers: folders, device, precision, seeds, whole files.

Every other module asks here instead of naming a folder or a device of its own.
"""

import errno
import json
import os
import platform
import random
import re
import secrets
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
# of the files that a run leaves; raised when a reader of the old ones would misread the new
FORMAT = 1
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
    """Where photographs and caches go.

    The folder that ATTENTION_DATA names, else the host's own, else `data/` of the project.
    """
    return Path(os.environ.get("ATTENTION_DATA") or hosts.folder("data")).expanduser().resolve()


def runs_folder() -> Path:
    """Where runs go: the folder that ATTENTION_RUNS names, else the host's own, else `runs/`."""
    return Path(os.environ.get("ATTENTION_RUNS") or hosts.folder("runs")).expanduser().resolve()


def run_folder(run: str) -> Path:
    """The folder of a run, created below `runs_folder`.

    Raises:
        ValueError: the name would leave that folder.
        CannotWrite: the folder cannot be made or written.
    """
    check_run_name(run)
    folder = runs_folder() / run
    with saying_what_to_do(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return folder


def check_run_name(run: str) -> None:
    """Raises ValueError unless `run` is the name of one folder."""
    if not run or run != Path(run).name or run in (".", ".."):
        raise ValueError(
            f"run is the name of one folder, such as 'sample' or 'seed-1', not {run!r}"
        )


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
    """The device to compute on; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: `device` is not here; the message lists those that are.
    """
    available = []
    if torch.cuda.is_available():
        available.append("cuda")
        available += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        available.append("mps")
    available.append("cpu")
    if device == "auto":
        return torch.device(available[0])
    if device not in available:
        raise ValueError(
            f"device {device!r} is not available here; set device to 'auto' or one of: "
            f"{', '.join(available)}"
        )
    return torch.device(device)


def choose_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The type of the network's arithmetic.

    Args:
        device: where it computes.
        precision: "fp32", "bf16" and "fp16" are taken as they are. "auto" is bf16 where the chip
            is fast at it, fp16 on older GPUs, else fp32.

    Raises:
        ValueError: another word.
    """
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision in types:
        return types[precision]
    if precision != "auto":
        raise ValueError(f"precision is 'auto' or one of {', '.join(types)}, not {precision!r}")
    if device.type == "cuda":
        recent = torch.cuda.get_device_capability(device)[0] >= 8  # from Ampere on
        return torch.bfloat16 if recent else torch.float16
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        if able.get("avx512_bf16") or able.get("amx_bf16"):
            return torch.bfloat16
    return torch.float32


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def saying_what_to_do(path: Path) -> Iterator[None]:
    """Turn the system's word that `path` cannot be written into a sentence with a remedy.

    What the system says of another place passes as it is: a file that cannot be read, say.

    Raises:
        CannotWrite: `path`, or a folder on the way to it, cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save tells of a full disk by a RuntimeError around it
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, CannotWrite) or not isinstance(cause, OSError):
            raise
        if cause.errno not in UNWRITABLE or not concerns(cause, path):
            raise
        inside_data = data_folder() in (path, *path.parents)
        variable = "ATTENTION_DATA" if inside_data else "ATTENTION_RUNS"
        raise CannotWrite(
            f"{path} cannot be written: {UNWRITABLE[cause.errno]}. What was there before is as it "
            f"was. Make room, or set {variable} to a folder that has it and is yours"
        ) from error


def concerns(error: OSError, path: Path) -> bool:
    """Whether an error is about `path`: what lies beside or below it, or a folder above it.

    An error that names no file comes from writing to one that is open.
    """
    if error.filename is None:
        return True
    named = Path(os.fsdecode(error.filename)).absolute()
    return named.is_relative_to(path.parent) or path.is_relative_to(named)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a path beside `path`, of the writer's own, that is renamed onto it when the block ends
    well: its bytes are on the disk by then, so that a power cut leaves the old file or the new.
    What killed processes of this machine left in the folder is deleted.

    Raises:
        CannotWrite: the disk is full or may not be written.
    """
    machine = re.sub(r"\W", "-", platform.node())[:40]
    token = secrets.token_hex(3)  # threads of one process write each a file of its own
    beside = path.with_name(f".{path.stem}.{machine}.{os.getpid()}.{token}{path.suffix}")
    with saying_what_to_do(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, machine)
        try:
            yield beside
            with beside.open("r+b") as written:
                os.fsync(written.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def remove_leftovers(folder: Path, machine: str) -> None:
    """Delete what killed processes of this machine were writing in a folder; others may yet end."""
    left = re.compile(rf"\..+\.{re.escape(machine)}\.(\d+)\.[0-9a-f]{{6}}(\.\w+)?")
    for file in folder.iterdir():
        writer = left.fullmatch(file.name)
        if writer and not psutil.pid_exists(int(writer[1])):
            file.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold what is made at `path` against other processes, for as long as the block lasts.

    A second process says so, and waits.
    """
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
    """What `write_json` wrote.

    Raises:
        FileNotFoundError: the file is not there; `notebook` makes it.
        ValueError: the file has another version of the format.
    """
    content = json.loads(need(path, notebook).read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {content.get('format')}, expected {FORMAT}: run {notebook} again"
        )
    return content


def need(path: Path, notebook: str) -> Path:
    """`path` if it exists.

    Raises:
        FileNotFoundError: it does not; the message names the notebook that makes it.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path.name} is not in {path.parent}: run {notebook} first (with the same `run`), or "
            "it and those before it from a cell of your own: import helpers.run; "
            f"helpers.run.main(['--run', '{path.parent.name}', '--to', '{notebook[:2]}'])"
        )
    return path


def read_table(path: Path, notebook: str, columns: Sequence[str]) -> pd.DataFrame:
    """A csv that a notebook left, with ids and sources as text and an empty cell as "".

    Raises:
        FileNotFoundError: the file is not there; `notebook` makes it.
        ValueError: one of `columns` is absent.
    """
    text = {"image_id": str, "source": str}
    table = pd.read_csv(need(path, notebook), dtype=text, keep_default_na=False)
    absent = [name for name in columns if name not in table]
    if absent:
        raise ValueError(
            f"{path} has the columns {', '.join(table)}; expected {', '.join(absent)} too, as this "
            f"version of the series writes it: run {notebook} again"
        )
    return table
