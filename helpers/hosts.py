"""Which host runs this: Colab, Kaggle, Gradient, or a machine of your own; and what it has, lacks and lends.

The first cell of each notebook imports this module before any other, so it needs nothing but Python itself.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
ROOT = Path("/")  # below which the folders lie that hosts promise
SIGNS = {
    "kaggle": "KAGGLE_KERNEL_RUN_TYPE",  # asked first: Kaggle's image is built from Colab's
    "colab": "COLAB_RELEASE_TAG",
    "gradient": "PAPERSPACE_NOTEBOOK_REPO_ID",
}
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
SECRETS = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")


def name() -> str:
    """ "kaggle", "colab", "gradient" or "local"."""
    return next((host for host, sign in SIGNS.items() if os.environ.get(sign)), "local")


def prepare() -> str:
    """Install what is missing here, and return the host's name.

    Packages come unpinned, and under the constraint that whatever is there stays as it is. Raises RuntimeError for a
    Python that is too old, or where pip cannot bring them.
    """
    if sys.version_info < OLDEST:
        raise RuntimeError(
            f"this series needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and this is "
            f"{sys.version.split()[0]}: choose another kernel, or on Gradient another image"
        )
    absent = missing()
    if absent:
        print("installing what is missing here:", ", ".join(absent), flush=True)
        install(absent)
    return name()


def missing() -> list[str]:
    """The packages of requirements.txt that the notebooks need and that cannot be imported here, without versions.

    None where that file is not there: somebody has copied `helpers` alone, and has a Python for it.
    """
    file = PROJECT / "requirements.txt"
    listed = (
        re.findall(r"^([\w-]+)==", file.read_text(encoding="utf-8"), re.MULTILINE)
        if file.is_file()
        else []
    )
    return [
        package
        for package in listed
        if package not in UNUSED and importlib.util.find_spec(MODULES.get(package, package)) is None
    ]


def install(packages: list[str]) -> None:
    """Bring packages with pip into the Python that runs this; none that is there is replaced. Raises RuntimeError."""
    here = {
        found.name: found.version
        for found in importlib.metadata.distributions()
        if found.name and found.version
    }
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.txt"
        kept.write_text(
            "".join(f"{package}=={version}\n" for package, version in here.items()),
            encoding="utf-8",
        )
        done = subprocess.run(
            [  # noqa: S603 - names from requirements.txt
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--constraint",
                str(kept),
                *packages,
            ],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        said = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR")
        ] or done.stderr.splitlines()
        raise RuntimeError(
            f"pip could not install {', '.join(packages)}: {said[0] if said else 'it says nothing'}. "
            "On Kaggle switch the notebook's Internet on; on a machine of your own type `make lab` in "
            f"{PROJECT}, which sets up an environment with everything"
        )
    importlib.invalidate_caches()


def folder(kind: str) -> Path:
    """Where "data" and "runs" go unless ATTENTION_DATA and ATTENTION_RUNS say otherwise: the host's own place for them.

    Gradient: below /storage, which outlives a session. Colab: runs go to your Drive if it is mounted; photographs do
    not, for so many small files are slow there. Kaggle: photographs go to /kaggle/temp, for what lies in
    /kaggle/working is kept as the notebook's output. Else, and where such a place is not there: the project.
    """
    place = {
        ("gradient", "data"): "storage",
        ("gradient", "runs"): "storage",
        ("kaggle", "data"): "kaggle/temp",
        ("colab", "runs"): "content/drive/MyDrive",
    }.get((name(), kind))
    if name() == "kaggle" and (ROOT / "kaggle" / "working").is_dir():
        (ROOT / "kaggle" / "temp").mkdir(exist_ok=True)
    return (
        ROOT / place / "attention" / kind if place and (ROOT / place).is_dir() else PROJECT / kind
    )


def lend_credentials(*, ask: bool) -> None:
    """Put into the environment what the host keeps for Kaggle's client: Colab's secrets, Gradient's /storage/kaggle.

    ask: Colab may ask the reader for leave to read its secrets; without, they are left alone.
    """
    kept = ROOT / "storage" / "kaggle"
    if name() == "gradient" and (kept / "kaggle.json").is_file():
        os.environ.setdefault("KAGGLE_CONFIG_DIR", str(kept))
    if name() == "colab" and ask:
        from google.colab import userdata  # there and nowhere else

        for secret in SECRETS:
            try:
                os.environ.setdefault(secret, userdata.get(secret))
            except (
                userdata.SecretNotFoundError,
                userdata.NotebookAccessError,
                userdata.TimeoutException,
            ):
                continue  # the reader keeps no such secret, or keeps it from this notebook
