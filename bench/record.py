"""What a program measured, and what that rests on, in data/results/ for README and web edition.

One json a program: its figures, the command, the commit, the machine, the seeds, the photographs,
the weights and the date. Tables lie beside it as csv. `publish.py` puts them where they are read.
"""

import dataclasses
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sys
import time
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["ATTENTION_HEADLESS"] = "1"

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from torchvision.models import VGG16_BN_Weights  # noqa: E402

from helpers import workspace  # noqa: E402
from helpers.runs import parameters  # noqa: E402
from helpers.training.settings import Parameters  # noqa: E402

RESULTS = workspace.PROJECT / "data" / "results"
# instruction sets that decide how fast a convolution is
FLAGS = ("avx2", "avx512_bf16", "amx_bf16")
# of torchvision's ImageNet weights; the file's name holds the start of its SHA-256
TORCHVISION = VGG16_BN_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]


def write(
    program: str,
    figures: dict,
    *,
    seeds: Sequence[int],
    data: dict,
    weights: str,
    device: torch.device,
    precision: str = "auto",
    folder: Path = RESULTS,
    tables: dict[str, pd.DataFrame] | None = None,
    more: dict | None = None,
) -> Path:
    """Leave `<program>.json`, and each table as `<program>-<name>.csv`, whole or not at all.

    Args:
        program: its name, without `.py`.
        figures: what it measured.
        seeds: of the networks behind the figures.
        data: what `photographs_of` says of the photographs.
        weights: the parameter `weights`.
        device: where the networks were trained.
        precision: the parameter `precision`.
        folder: another place than data/results/, such as a test's.
        tables: figures that are tables.
        more: of the machine, beside what `machine` says.

    Returns:
        The json's path.
    """
    tables = tables or {}
    for name, table in tables.items():
        with workspace.replacing(folder / f"{program}-{name}.csv") as beside:
            table.to_csv(beside, index=False, float_format="%.6g")
    path = folder / f"{program}.json"
    content = {
        "figures": figures,
        "tables": [f"{program}-{name}.csv" for name in tables],
        "command": command(),
        "commit": COMMIT,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(device, precision) | (more or {}),
        "seeds": list(seeds),
        "data": data,
        "weights": weights_of(weights),
    }
    workspace.write_json(path, content)
    return path


def read(program: str, folder: Path = RESULTS) -> dict | None:
    """What `write` left, its tables as data frames; None where nothing was measured yet."""
    path = folder / f"{program}.json"
    if not path.exists():
        return None
    content = workspace.read_json(path, "the program of bench/ that measures it")
    names = content["tables"]
    tables = {}
    for name in names:  # an empty cell is missing, and a network "none" is none
        tables[name] = pd.read_csv(folder / name, keep_default_na=False, na_values=[""])
    return content | {"tables": tables}


def parameters_of(
    pairs: Sequence[tuple[str, str]], *, decided: Collection[str] = (), **defaults: object
) -> Parameters:
    """The parameters of the series: its defaults, those of a program, and what `-p` says.

    Args:
        pairs: names and values of `-p`.
        decided: names that the program decides itself, beside `run`.
        defaults: of the program.

    Raises:
        ValueError: a name is unknown, a value out of range, or the program decides it.
    """
    idle = [name for name, _ in pairs if name in ("run", *decided)]
    if idle:
        raise ValueError(f"-p {', '.join(idle)}: this program decides that itself; leave it out")
    known = [field.name for field in dataclasses.fields(Parameters)]
    given = parameters.read_parameters("", pairs, known)
    return Parameters(**defaults | given)


def command() -> str:
    """How this program was started; of a file only its name, since its folder is this machine's."""
    program = Path(sys.argv[0]).resolve()
    if program.is_relative_to(workspace.PROJECT):
        program = program.relative_to(workspace.PROJECT)
    words = ["python", program.as_posix()]
    for word in sys.argv[1:]:
        is_path = "/" in word and Path(word).exists()
        words.append(Path(word).name if is_path else word)
    return shlex.join(words)


def commit() -> str:
    """The commit that is checked out, with "-dirty" where files differ; "unknown" without git."""
    describe = ["git", "-C", str(workspace.PROJECT), "describe", "--always", "--dirty"]
    try:
        said = subprocess.run(describe, check=True, capture_output=True, text=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()


COMMIT = commit()  # as the program starts: its results, and whoever commits meanwhile, change it


def machine(device: torch.device, precision: str = "auto") -> dict:
    """Processor, cores, the instruction sets of FLAGS that it has, PyTorch, device, precision.

    Args:
        device: where the networks were trained.
        precision: the parameter; "auto" is what it is there.
    """
    able = torch.cpu.get_capabilities()
    return {
        "processor": processor(),
        "cores": cores(),
        "instructions": [name for name in FLAGS if able.get(name)],
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": str(workspace.choose_precision(device, precision)).removeprefix("torch."),
    }


def processor() -> str:
    """The processor's name, as the system gives it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(": ")[1]
    return platform.processor() or platform.machine()


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def photographs_of(name: str, ids: Iterable[str], melanomas: int) -> dict:
    """Name, count and melanomas of the photographs, and a checksum of their ids, sorted."""
    ids = sorted(ids)
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    return {"name": name, "photographs": len(ids), "melanomas": melanomas, "ids": digest[:16]}


def weights_of(weights: str) -> dict:
    """Name and CRC-32 of the parameter `weights`; whether they stand in for torchvision's.

    >>> weights_of("none")
    {'name': 'none', 'crc32': '', 'stand_in': False}
    """
    if weights == "none":
        return {"name": "none", "crc32": "", "stand_in": False}
    path = workspace.resolve(weights)
    if weights == "imagenet":
        path = Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION
    there = path.stat()
    crc, digest = checksums(path, there.st_size, there.st_mtime_ns)
    start = TORCHVISION.rsplit("-", 1)[1].removesuffix(".pth")
    return {"name": path.name, "crc32": f"{crc:08x}", "stand_in": not digest.startswith(start)}


@functools.cache
def checksums(path: Path, size: int, changed: int) -> tuple[int, str]:
    """CRC-32 and SHA-256 of a file, read once as long as its size and time of change stay."""
    content = path.read_bytes()
    return zlib.crc32(content), hashlib.sha256(content).hexdigest()
