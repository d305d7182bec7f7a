"""Where things lie and what the machine offers: folders, host, device, precision, seeds, files never half written.

Every other module asks here instead of naming a folder or a device of its own.
"""

import glob
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch
from filelock import FileLock

PROJECT = Path(__file__).resolve().parent.parent
FORMAT = 1  # of the files that a run leaves; raised when a reader of the old ones would misread the new


def data_folder() -> Path:
    """Where photographs and caches go: `data/` in the project, or the folder that ATTENTION_DATA names."""
    return Path(os.environ.get("ATTENTION_DATA") or PROJECT / "data").expanduser().resolve()


def run_folder(run: str) -> Path:
    """The folder of a run, created: `runs/<run>`, or below the folder that ATTENTION_RUNS names.

    Raises ValueError for a name that would leave that folder.
    """
    if not run or run != Path(run).name or run in (".", ".."):
        raise ValueError(f"run is the name of one folder, such as 'sample' or 'seed-1', not {run!r}")
    folder = Path(os.environ.get("ATTENTION_RUNS") or PROJECT / "runs").expanduser().resolve() / run
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def resolve(path: str | Path) -> Path:
    """An absolute path: `~` is the home folder, a relative path starts at the project's root."""
    path = Path(path).expanduser()
    return (path if path.is_absolute() else PROJECT / path).resolve()


def headless() -> bool:
    """True where nobody watches: progress bars and widgets give way to lines and still figures."""
    return os.environ.get("ATTENTION_HEADLESS") == "1"


def host() -> str:
    """Which host runs this: "kaggle", "colab", "gradient" or "local"."""
    signs = {"kaggle": "KAGGLE_KERNEL_RUN_TYPE",  # asked first: Kaggle's image is built from Colab's
             "colab": "COLAB_RELEASE_TAG",
             "gradient": "PAPERSPACE_NOTEBOOK_REPO_ID"}
    return next((name for name, variable in signs.items() if os.environ.get(variable)), "local")


def choose_device(device: str = "auto") -> torch.device:
    """The device to compute on; "auto" takes CUDA, then MPS, then CPU. Raises ValueError if `device` is not there."""
    there = ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    there = there if torch.cuda.is_available() else []
    there += ["mps"] if torch.backends.mps.is_available() else []
    there += ["cpu"]
    if device == "auto":
        return torch.device(there[0])
    if device not in there:
        raise ValueError(f"device {device!r} is not available here; set device to 'auto' or one of: {', '.join(there)}")
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
    able = torch.cpu.get_capabilities() if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: yields a path beside `path`, renamed onto it when the block ends well.

    What a killed process left of the same file is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    for left in path.parent.glob(glob.escape(f".{path.stem}.") + "*" + glob.escape(path.suffix)):
        writer = left.name[len(path.stem) + 2:len(left.name) - len(path.suffix)]
        if writer.isdigit() and not psutil.pid_exists(int(writer)):
            left.unlink(missing_ok=True)
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold what is made at `path` against other processes, which wait here; for as long as the block lasts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def write_json(path: Path, content: dict) -> None:
    """Write `content` and the format's version as JSON, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(json.dumps({"format": FORMAT, **content}, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path, notebook: str) -> dict:
    """What `write_json` wrote. Raises as `need` does, and ValueError for another format's version."""
    content = json.loads(need(path, notebook).read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} has format {content.get('format')}, expected {FORMAT}: run {notebook} again")
    return content


def need(path: Path, notebook: str) -> Path:
    """`path` if it exists. Raises FileNotFoundError that names the notebook which makes it."""
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is not in {path.parent}: run {notebook} first (with the same `run`)")
    return path
