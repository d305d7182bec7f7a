"""Where things lie and what the machine offers: folders, device, precision, seeds, whole files.

Every other module asks here instead of naming a folder or a device of its own.
"""

import errno
import functools
import io
import json
import math
import os
import platform
import random
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath

import numpy as np
import pandas as pd
import psutil
import torch
from filelock import FileLock, SoftFileLock, Timeout
from tqdm.auto import tqdm

from helpers import hosts

PROJECT = hosts.PROJECT
# of the files that a run leaves; raised when a reader of the old ones would misread the new
FORMAT = 1
# entries of these files that are places
PLACES = ("csv", "file", "folder", "ids", "masks_file", "masks_folder")
UNWRITABLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is used up",
    errno.EFBIG: "the file may not grow so large",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.ENOTDIR: "what should be a folder is a file",
    errno.ELOOP: "its links lead in a circle",
    errno.EEXIST: "what should be a folder is a file, or a link to nothing",
    errno.ENAMETOOLONG: "that disk takes no path so long",
    errno.EBUSY: "another program holds it",
    errno.EXDEV: "that disk does not let it be renamed",
    errno.ENOSYS: "that disk does not do all that is needed",
    errno.EOPNOTSUPP: "that disk does not do all that is needed",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MANY_FILES = (errno.EMFILE, errno.ENFILE)
# how a disk answers that fails or has dropped out, mostly one on the network; not every system
# knows every name
DROPPED = {
    number
    for number, name in errno.errorcode.items()
    if re.fullmatch(
        "EIO|ENXIO|ENODEV|ENOTCONN|ESTALE|EREMOTE|EREMOTEIO|ENOLINK|EHOSTDOWN|EHOSTUNREACH|"
        "ENETUNREACH|ENETDOWN|ETIMEDOUT|ESHUTDOWN|ECOMM|EPROTO|EBADMSG|EUCLEAN|ENOMEDIUM",
        name,
    )
}
# how a disk answers that does not know a call; 524 is what Linux lets through from some
UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, 524)
NO_LOCKS = (*UNKNOWN, errno.ENOLCK)
NO_MAPS = (*UNKNOWN, errno.ENODEV)
# what is true of one file, and of no disk
OF_A_FILE = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LONGEST_NAME = 255  # bytes, on the file systems of Linux, macOS and Windows
# what is no run's name, as patterns, and why
NO_RUN_NAMES = (
    (r"\.{0,2}", "that names none"),
    (r".*[/\\].*", "/ and \\ lead to another folder"),
    (r'.*[:*?"<>|].*', 'not every disk takes one of : * ? " < > |'),
    (r".*[\x00-\x1f\x7f-\x9f\u2028\u2029].*", "it has a character that nobody sees"),
    (r"-.*", "a command would take it for an option"),
    (r"\s.*|.*[\s.]", "not every disk keeps a blank at an end, or a dot at the last"),
    (r"(?i:con|prn|aux|nul|(com|lpt)\d)(\..*)?", "Windows has a device of that name"),
)


class NotFetched(RuntimeError):
    """Photographs did not come from where they were asked for; the message says what to do."""

    def _render_traceback_(self) -> list[str]:
        """What IPython asks for: a notebook shows the message alone."""
        return [f"{type(self).__name__}: {self}"]


class CannotWrite(OSError):
    """A place cannot be written; the message says why and what to do."""


class CannotRead(OSError):
    """A disk does not give what lies on it; the message says why and what to do."""


def data_folder() -> Path:
    """Where photographs and caches go.

    The folder that ATTENTION_DATA names, else the host's own, else `data/` of the project.
    """
    return resolve(os.environ.get("ATTENTION_DATA") or hosts.folder("data"))


def runs_folder() -> Path:
    """Where runs go: the folder that ATTENTION_RUNS names, else the host's own, else `runs/`."""
    return resolve(os.environ.get("ATTENTION_RUNS") or hosts.folder("runs"))


def start_command() -> None:
    """What each command does first.

    From here on its folders are absolute: a relative ATTENTION_DATA or ATTENTION_RUNS starts where
    the caller is. A path with a letter that the terminal lacks is printed with an escape for it.

    Raises:
        ValueError: a folder is none of this machine, or its path is not UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not that of a notebook
            stream.reconfigure(errors="backslashreplace")
    hosts.pin_folders(Path.cwd())
    for folder in (PROJECT, data_folder(), runs_folder()):
        if not is_utf8(folder):
            raise ValueError(
                f"{folder} has letters that are not UTF-8, as a notebook's must be: rename the "
                "folder, or set ATTENTION_DATA and ATTENTION_RUNS to others"
            )


def is_utf8(text: str | Path) -> bool:
    """Whether text can be written as UTF-8: that of the system may hold bytes of an older code."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


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
    """Raises ValueError unless `run` names one folder, wherever the run may be moved to."""
    reasons = [why for pattern, why in NO_RUN_NAMES if re.fullmatch(pattern, run, re.DOTALL)]
    if not is_utf8(run) or len(run.encode()) > LONGEST_NAME:
        reasons.append(f"a name is UTF-8 of at most {LONGEST_NAME} bytes")
    if reasons:
        raise ValueError(
            f"run is the name of one folder, such as 'sample' or 'seed-1', not "
            f"{run[:80]!r}: {reasons[0]}"
        )


def resolve(path: str | Path) -> Path:
    """An absolute path: `~` is the home folder, a relative path starts at the project's root.

    Raises:
        ValueError: nobody has that home folder.
    """
    return Path(os.path.realpath(hosts.absolute(path, PROJECT)))


def headless() -> bool:
    """True where nobody watches: progress bars and widgets give way to lines and still figures."""
    return (
        os.environ.get("ATTENTION_HEADLESS") == "1"
        or os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch"
    )


def progress(
    what: str,
    items: Iterable | None = None,
    total: float | None = None,
    **options: object,
) -> tqdm:
    """A bar that says how much is done and how long the rest may take; gone when all is done.

    There is none where nobody watches.

    Args:
        what: is done, in a word or two.
        items: to go through, as in `for item in progress("measured", items)`; None where the
            caller calls `update`.
        total: how many there are, where `items` cannot tell.
        options: more of tqdm's.
    """
    return tqdm(items, desc=what, total=total, leave=False, disable=headless(), **options)


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


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device, without waiting for it where that is safe.

    It is on CUDA, which has copied from ordinary memory when the call returns. MPS reads on after
    that, perhaps what Python has freed meanwhile.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def choose_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The type of the network's arithmetic.

    Half precision that a processor only imitates is slow: where it was asked for, a line is
    printed that says so, once.

    Args:
        device: where it computes.
        precision: "fp32", "bf16" or "fp16"; "auto" is bf16 where the chip has it in hardware, fp16
            on older GPUs, else fp32.

    Raises:
        ValueError: another word; or bf16, on a GPU that only imitates it.
    """
    if precision not in ("auto", *PRECISIONS):
        names = ", ".join(PRECISIONS)
        raise ValueError(f"precision is 'auto' or one of {names}, not {precision!r}")
    if precision == "auto":
        return fastest_precision(device)
    if device.type == "cuda" and precision == "bf16":
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            raise ValueError(
                f"precision is 'bf16', which this GPU only imitates (its compute capability is "
                f"{major}.{minor}, expected 8.0 or more): set precision to 'fp16' or 'auto'"
            )
    if device.type == "cpu" and precision != "fp32" and not in_hardware(precision):
        say_what_it_costs(precision)
    return PRECISIONS[precision]


def fastest_precision(device: torch.device) -> torch.dtype:
    """The fastest arithmetic that is safe there, and that the chip has in hardware."""
    if device.type == "cuda":
        recent = torch.cuda.get_device_capability(device)[0] >= 8  # from Ampere on
        return torch.bfloat16 if recent else torch.float16
    if device.type == "cpu" and in_hardware("bf16"):
        return torch.bfloat16
    return torch.float32


def in_hardware(precision: str) -> bool:
    """Whether this processor multiplies "bf16" or "fp16" itself, as far as PyTorch can tell."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get(f"avx512_{precision}") or able.get(f"amx_{precision}"))


@functools.cache
def say_what_it_costs(precision: str) -> None:
    """Print what half precision costs on a processor without it, the first time."""
    print(
        f"precision is {precision!r}, which this processor only imitates, in fp32 with conversions "
        "before and after: training takes longer than with precision 'fp32', and is less exact"
    )


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
        if not isinstance(cause, OSError) or cause.errno in (None, errno.ENOENT):
            raise
        known = cause.errno in {*UNWRITABLE, *DROPPED, *MANY_FILES}
        if not concerns(cause, path) or (cause.filename is None and not known):
            raise
        raise CannotWrite(
            f"{shown(path)} cannot be written: {in_words(cause)}. What was there before is as it "
            f"was. {remedy(cause, path)}"
        ) from error


@contextmanager
def saying_what_fails(path: str | Path) -> Iterator[None]:
    """Turn what a failing disk says of `path`, or of what lies there, into a sentence.

    What is true of one file passes as it is: that it is missing, or may not be read.

    Raises:
        CannotRead: the disk fails, has dropped out, or does not do what is needed.
    """
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        if error.errno is None or error.errno in (*OF_A_FILE, errno.EEXIST):
            raise
        place = Path(os.fsdecode(error.filename or path))
        raise CannotRead(
            f"{shown(place)} cannot be read: {in_words(error)}. That is no word on what the file "
            f"holds. {remedy(error, place)}"
        ) from error


def in_words(error: OSError) -> str:
    """Why the system refused."""
    said = error.strerror or os.strerror(error.errno)
    if error.errno in DROPPED:
        return f"the disk fails or has dropped out ({said})"
    return UNWRITABLE.get(error.errno, said)


def variable(path: Path) -> str:
    """Which of ATTENTION_DATA and ATTENTION_RUNS moves a path elsewhere; "" for neither."""
    place = Path(os.path.realpath(path))
    if place.is_relative_to(data_folder()):
        return "ATTENTION_DATA"
    if place.is_relative_to(runs_folder()):
        return "ATTENTION_RUNS"
    return ""


def shown(path: Path) -> str:
    """A path, after the variable that moves it elsewhere."""
    return f"{variable(path)}: {path}".removeprefix(": ")


def remedy(error: OSError, path: Path) -> str:
    """What the reader can do about a refusal."""
    if error.errno in MANY_FILES:
        return "Too many files are open: end other programs, or start again after `ulimit -n 4096`"
    setting = variable(path)
    choose = f"set {setting} to a folder" if setting else "name a folder"
    if error.errno in FULL:
        return f"Make room, or {choose} that has it and is yours"
    if error.errno in DROPPED:
        return (
            f"Connect that disk again and start again, or {choose} on a disk of this machine, with "
            "a copy of what is needed"
        )
    return f"Mend that, or {choose} that is yours, on a disk of this machine"


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
            flush(beside)
            move(beside, path)
        finally:
            with suppress(OSError):  # on a disk that has dropped out the first error counts
                beside.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the disk keep a file's bytes, where it knows how."""
    with path.open("r+b") as written:
        try:
            os.fsync(written.fileno())
        except OSError as error:
            if error.errno not in UNKNOWN:
                raise


def move(path: Path, place: Path) -> None:
    """Rename, after a moment where another program holds the place.

    A virus scanner or an indexer does so, on Windows and on disks that Windows serves.
    """
    for seconds in (0.1, 0.5, 1.0):
        try:
            os.replace(path, place)
            return
        except OSError as error:
            held = error.errno == errno.EBUSY or isinstance(error, PermissionError)
            if not held or (os.name == "posix" and error.errno != errno.EBUSY):
                raise
        time.sleep(seconds)
    os.replace(path, place)


def remove_leftovers(folder: Path, machine: str) -> None:
    """Delete what killed processes of this machine were writing in a folder; others may yet end."""
    left = re.compile(rf"\..+\.{re.escape(machine)}\.(\d+)\.[0-9a-f]{{6}}(\.\w+)?")
    for file in folder.iterdir():
        writer = left.fullmatch(file.name)
        if writer and not psutil.pid_exists(int(writer[1])):
            with suppress(OSError):  # another user's, in a folder that several share
                file.unlink(missing_ok=True)


def free_space(folder: Path) -> float:
    """Bytes that are free on a folder's disk; infinity where it does not say, as some do not."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return math.inf
    return usage.free if usage.total else math.inf


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold what is made at `path` against other processes, for as long as the block lasts.

    A second process says so, and waits.

    Raises:
        CannotWrite: the folder cannot be made or written.
    """
    with saying_what_to_do(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if knows_locks(path.parent):
            lock = FileLock(path.with_name(f".{path.name}.lock"))
            hint = ""
        else:
            lock = SoftFileLock(path.with_name(f".{path.name}.busy"))
            hint = f"; if there is none, delete {lock.lock_file}"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(
                f"another process is writing {path}: this one goes on when that is done{hint}",
                flush=True,
            )
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@functools.cache
def knows_locks(folder: Path) -> bool:
    """Whether the disk of a folder knows the system's locks; some of the network's do not.

    There a file that exists stands for a lock. That is printed.
    """
    if os.name != "posix":
        return True
    import fcntl  # there and nowhere else

    with tempfile.TemporaryFile(dir=folder) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(
                f"the disk of {folder} knows no locks ({error.strerror}): files named .*.busy "
                "stand for them",
                flush=True,
            )
            return False
    return True


def write_json(path: Path, content: dict) -> None:
    """Write `as_json` of `content`, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(as_json(content), encoding="utf-8")


def as_json(content: dict) -> str:
    """`content` and the format's version; PLACES below the data folder are relative to it."""
    moved = {}
    for name in PLACES:
        path = content.get(name)
        if isinstance(path, str) and path and Path(path).is_relative_to(data_folder()):
            moved[name] = Path(path).relative_to(data_folder()).as_posix()
    return json.dumps({"format": FORMAT, **content, **moved}, indent=2) + "\n"


def placed(written: str) -> Path:
    """Where a place lies that a file of a run names: a relative one starts at the data folder."""
    if PureWindowsPath(written).drive:  # another machine's, or this one's
        return Path(written)
    found = data_folder() / written
    if not found.exists() and "\\" in written:
        found = data_folder() / PureWindowsPath(written).as_posix()
    return found


def read_json(path: Path, notebook: str, *, version: int = FORMAT) -> dict:
    """What `write_json` wrote; its PLACES are absolute.

    Args:
        path: the file.
        notebook: which makes it.
        version: of the file's format.

    Raises:
        FileNotFoundError: the file is not there; `notebook` makes it.
        ValueError: the file is damaged, or has another version of the format.
    """
    with saying_what_fails(path):
        written = need(path, notebook).read_bytes()
    try:
        content = dict(json.loads(written))
    except (TypeError, ValueError) as error:  # ValueError: not JSON, or not UTF-8
        raise ValueError(f"{path} is damaged ({error}): run {notebook} again") from error
    if content.get("format") != version:
        raise ValueError(
            f"{path} has format {content.get('format')}, expected {version}: run {notebook} again"
        )
    for name in PLACES:
        if isinstance(content.get(name), str) and content[name]:
            content[name] = str(placed(content[name]))
    return content


def need(path: Path, notebook: str) -> Path:
    """`path` if it exists.

    Raises:
        FileNotFoundError: it does not; the message names the notebook that makes it.
    """
    if not path.exists():
        # not from 01 on where that has run: it would bring the sample in place of the reader's set
        left = ("dataset.json", "01"), ("cache.json", "02"), (path.name, notebook[:2])
        first = next(part for name, part in left if not (path.parent / name).exists())
        raise FileNotFoundError(
            f"{path.name} is not in {path.parent}: run {notebook} first (with the same `run`), or "
            "all that is missing from a cell of your own: import helpers.run; helpers.run.main(["
            f"'--run', '{path.parent.name}', '--from', '{first}', '--to', '{notebook[:2]}'])"
        )
    return path


def read_table(path: Path, notebook: str, columns: Sequence[str]) -> pd.DataFrame:
    """A csv that a notebook left, with ids and sources as text and an empty cell as "".

    Raises:
        FileNotFoundError: the file is not there; `notebook` makes it.
        ValueError: it is damaged, or one of `columns` is absent.
    """
    text = {"image_id": str, "source": str}
    with saying_what_fails(path):
        need(path, notebook)
        try:
            table = pd.read_csv(path, dtype=text, keep_default_na=False)
        except ValueError as error:  # empty, cut, or not UTF-8
            raise ValueError(f"{path} is damaged ({error}): run {notebook} again") from error
    absent = [name for name in columns if name not in table]
    if absent:
        raise ValueError(
            f"{path} has the columns {', '.join(table)}; expected {', '.join(absent)} too, as this "
            f"version of the series writes it: run {notebook} again"
        )
    return table
