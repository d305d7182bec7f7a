"""Which host runs this: Colab, Kaggle, Gradient or your own machine; what it has, lacks and lends.

The first cell of each notebook imports this module before any other, so it needs nothing but Python
itself: one that is too old, too, so that it can be told so.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
NEWEST = (3, 13)  # the pins of requirements.txt were tried up to here
ROOT = Path("/")  # below which the folders lie that hosts promise
SIGNS = {
    "kaggle": "KAGGLE_KERNEL_RUN_TYPE",  # asked first: Kaggle's image is built from Colab's
    "colab": "COLAB_RELEASE_TAG",
    "gradient": "PAPERSPACE_NOTEBOOK_REPO_ID",
}
# a version as PEP 440 has it; pip takes no other in a list of constraints
VERSION = re.compile(
    r"v?(\d+!)?\d+(\.\d+)*([-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?"
    r"(-\d+|[-_.]?(post|rev|r)[-_.]?\d*)?([-_.]?dev[-_.]?\d*)?(\+[a-z\d]+([-_.][a-z\d]+)*)?",
    re.IGNORECASE | re.ASCII,
)
PACKAGE = re.compile(r"[a-z\d]([\w.-]*[a-z\d])?", re.IGNORECASE | re.ASCII)  # PEP 508's names
# the names of requirements.txt that are imported under another one
MODULES = {
    "ImageHash": "imagehash",
    "ipython": "IPython",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "PyYAML": "yaml",
    "scikit-learn": "sklearn",
}
UNUSED = ("jupyterlab", "nbval", "pytest", "ruff")  # no notebook imports these
# the oldest editions that the notebooks were run by: those of tests/hosts/colab.txt
TRIED = {
    "torch": (2, 11),
    "torchvision": (0, 26),
    "numpy": (2, 1),
    "pandas": (2, 2),
    "scikit-learn": (1, 6),
    "matplotlib": (3, 10),
}
# without these nothing runs: torch.accelerator, GradScaler and fused optimisers on each device
NEEDED = {"torch": (2, 6)}
SECRETS = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")


def name() -> str:
    """The host's name: "kaggle", "colab", "gradient" or "local"."""
    for host, sign in SIGNS.items():
        if os.environ.get(sign):
            return host
    return "local"


def prepare() -> str:
    """Install what is missing, where a machine is lent for that: on Colab, Kaggle and Gradient.

    Packages come unpinned, and under the constraint that whatever is there stays as it is. Into an
    environment of the reader's own, or of somebody else, nothing is installed.

    Returns:
        The host's name.

    Raises:
        RuntimeError: this Python is too old or too new, PyTorch is too old, or packages are missing
            that pip cannot bring, or may not.
        ValueError: as `pin_folders`.
    """
    check_python()
    check_versions()
    pin_folders(PROJECT)
    host = name()
    if host == "local":
        check_packages()
        old = older_than(TRIED)
        if old:
            print(
                "older than what these notebooks were tried with:",
                ", ".join(old),
                f"(if something fails here, type `make lab` in {PROJECT})",
                flush=True,
            )
        return host
    absent = missing()
    if absent:
        print("installing what is missing here:", ", ".join(absent), flush=True)
        install(absent)
    return host


def leave_unless_ready() -> None:
    """End a command with a sentence where this Python cannot run it; before it imports the rest."""
    try:
        check_python()
        check_packages()
        check_versions()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


def check_packages() -> None:
    """Raises RuntimeError where packages are missing; it names them, and the commands that help."""
    absent = missing()
    if not absent:
        return
    pip = f"{sys.executable} -m pip install {' '.join(absent)}"
    if importlib.util.find_spec("pip") is None:
        pip = f"{sys.executable} -m ensurepip, and then {pip}"
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    raise RuntimeError(
        f"{', '.join(absent[:3])}{more} cannot be imported by this Python, {sys.executable}, and "
        f"nothing is installed into it unasked. Type `make lab` in {PROJECT}, which sets up an "
        f"environment with everything, or choose a kernel that has them; or, if this one is yours "
        f"to change, type {pip}"
    )


def check_python() -> None:
    """Raises RuntimeError unless this Python is one that the series takes."""
    here = tuple(sys.version_info[:2])
    if OLDEST <= here <= NEWEST:
        return
    oldest = ".".join(map(str, OLDEST))
    newest = ".".join(map(str, NEWEST))
    raise RuntimeError(
        f"this series needs Python {oldest} to {newest}, and this is {sys.version.split()[0]}: "
        "choose another kernel, on Gradient another image, or on a machine of your own install "
        f"Python {newest} and type `make lab` in {PROJECT}"
    )


def check_versions() -> None:
    """Raises RuntimeError where a package of NEEDED is here in an edition that is too old."""
    old = older_than(NEEDED)
    if not old:
        return
    raise RuntimeError(
        f"too old for these notebooks, with what they need at least: {', '.join(old)}. What a host "
        "brings is never replaced unasked. On Gradient choose another image; elsewhere, if this "
        f"Python is yours to change, type {sys.executable} -m pip install --upgrade torch "
        f"torchvision and start the kernel anew, or type `make lab` in {PROJECT}"
    )


def missing() -> list[str]:
    """The packages that the notebooks need and that cannot be imported here, without versions.

    They are those of requirements.txt; none where that file is not there: somebody has copied
    `helpers` alone, and has a Python for it.
    """
    file = PROJECT / "requirements.txt"
    if not file.is_file():
        return []
    absent = []
    for package in re.findall(r"^([\w-]+)==", file.read_text(encoding="utf-8"), re.MULTILINE):
        module = MODULES.get(package, package)
        if package not in UNUSED and not can_be_imported(module):
            absent.append(package)
    return absent


def older_than(editions: dict[str, tuple[int, int]]) -> list[str]:
    """The packages that are here in an older edition than these: name, version, what is compared.

    Args:
        editions: by package, such as TRIED.
    """
    from importlib import metadata  # not there before Python 3.8, which is to be told so

    old = []
    for package, edition in editions.items():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        here = re.match(r"(\d+)\.(\d+)", version)
        if here and (int(here[1]), int(here[2])) < edition:
            old.append(f"{package} {version} ({edition[0]}.{edition[1]})")
    return old


def can_be_imported(module: str) -> bool:
    """Whether there is such a module; a folder of that name beside the notebook is none."""
    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None


def install(packages: list[str]) -> None:
    """Bring packages with pip into the Python that runs this; none that is there is replaced.

    Raises:
        RuntimeError: pip cannot; the message has its first reason.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as place:
        kept = Path(place) / "kept.txt"
        kept.write_text("".join(f"{line}\n" for line in constraints()), encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - names from requirements.txt
            [*command, "--constraint", str(kept), *packages], capture_output=True, text=True
        )
    if done.returncode:
        lines = done.stderr.splitlines()
        errors = [line for line in lines if line.startswith("ERROR")]
        reason = (errors or lines or ["it says nothing"])[0]
        raise RuntimeError(
            f"pip could not install {', '.join(packages)}: {reason}. On Kaggle switch the "
            "notebook's Internet on; on a machine of your own type `make lab` in "
            f"{PROJECT}, which sets up an environment with everything"
        )
    importlib.invalidate_caches()


def constraints() -> list[str]:
    """A line `name==version` for each package that is here and that pip can hold fast.

    Systems name some of their own packages' versions in ways of their own, `1.1build1`: one such
    line, and pip would refuse all.
    """
    from importlib import metadata

    versions = {}
    for package in metadata.distributions():
        if not PACKAGE.fullmatch(package.name or "") or not VERSION.fullmatch(
            package.version or ""
        ):
            continue
        # where it is there twice, the first is the one that Python imports
        versions.setdefault(re.sub(r"[-_.]+", "-", package.name).lower(), package.version)
    return [f"{package}=={version}" for package, version in versions.items()]


def folder(kind: str) -> Path:
    """Where files go unless ATTENTION_DATA and ATTENTION_RUNS say otherwise.

    Gradient: below /storage, which outlives a session. Colab: runs go to your Drive if it is
    mounted; photographs do not, for so many small files are slow there. Kaggle: photographs go to
    /kaggle/temp, for what lies in /kaggle/working is kept as the notebook's output. Else, and where
    such a place is not there: the project.

    Args:
        kind: "data" or "runs".
    """
    host = name()
    if host == "kaggle" and (ROOT / "kaggle" / "working").is_dir():
        (ROOT / "kaggle" / "temp").mkdir(exist_ok=True)
    places = {
        ("gradient", "data"): "storage",
        ("gradient", "runs"): "storage",
        ("kaggle", "data"): "kaggle/temp",
        ("colab", "runs"): "content/drive/MyDrive",
    }
    place = places.get((host, kind))
    if place is not None and (ROOT / place).is_dir():
        return ROOT / place / "attention" / kind
    return PROJECT / kind


def pin_folders(start: Path) -> None:
    """Make ATTENTION_DATA and ATTENTION_RUNS absolute, for this process and those that it starts.

    They work elsewhere, a kernel in its notebook's folder, and are to find the same places.

    Args:
        start: where a relative one starts: a command's caller is there, a notebook at the project.

    Raises:
        ValueError: one of them is no folder of this machine.
    """
    for variable in ("ATTENTION_DATA", "ATTENTION_RUNS"):
        given = os.environ.get(variable)
        if not given:
            continue
        if "://" in given:
            raise ValueError(
                f"{variable} is {given!r}, an address: name a folder of this machine, such as one "
                "where that place is mounted"
            )
        try:
            os.environ[variable] = str(absolute(given, start))
        except ValueError as error:
            raise ValueError(f"{variable}: {error}") from None


def absolute(path: str | Path, start: Path) -> Path:
    """`path` from the folder `start`, and from the home folder where it begins with ~.

    Raises:
        ValueError: nobody has that home folder.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError(f"{path} begins with ~, and that home folder is not known: write it out")
    return start / expanded


def lend_credentials(*, ask: bool) -> None:
    """Put into the environment what the host keeps for Kaggle's client.

    That is Colab's secrets, and Gradient's /storage/kaggle.

    Args:
        ask: Colab may ask the reader for leave to read its secrets; without, they are left alone.
    """
    host = name()
    kept = ROOT / "storage" / "kaggle"
    if host == "gradient" and (kept / "kaggle.json").is_file():
        os.environ.setdefault("KAGGLE_CONFIG_DIR", str(kept))
    if host == "colab" and ask:
        from google.colab import userdata  # there and nowhere else

        refusals = (
            userdata.SecretNotFoundError,
            userdata.NotebookAccessError,
            userdata.TimeoutException,
        )
        for secret in SECRETS:
            try:
                os.environ.setdefault(secret, userdata.get(secret))
            except refusals:
                continue  # the reader keeps no such secret, or keeps it from this notebook
