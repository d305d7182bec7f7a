"""A reader who fetches from Kaggle: fixtures, imported by name, of the tests of its client.

The client reads its environment when it is imported, so each of their calls runs in a process of
its own: one that forks from a process which has imported the rest, since PyTorch takes seconds.
"""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import papermill
import pytest

from helpers import workspace
from helpers.photographs.kaggle import KAGGLE_DATASET
from tests.conftest import PATIENCE
from tests.loopback_kaggle import KEY, OAUTH, SECRETS, TOKEN, USER

NAME = KAGGLE_DATASET
SLUG = NAME.split("/")[1]


FORK = """
import json, os, sys, traceback
from helpers.photographs import archives, kaggle, sources
for line in sys.stdin:
    variables, output, code = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.clear()
        os.environ.update(variables)
        for stream in (1, 2):
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        try:
            exec(code)
            status = 0
        except kaggle.KaggleFailed:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def forks():
    """The process that forks: a line of JSON in, the exit status out."""
    with subprocess.Popen(
        [sys.executable, "-c", FORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=workspace.PROJECT,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def reader(forks, folders, tmp_path):
    """A reader with an empty home folder, who runs code in a process of its own, and a server."""
    home = tmp_path / "home"
    home.mkdir()

    def run(
        server, code=f"print('at', kaggle.fetch({NAME!r}).name)", **variables
    ) -> SimpleNamespace:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KAGGLE_", "XDG_"))
        }
        environment |= {"ATTENTION_HEADLESS": "1", **server.environment(home), **variables}
        output = tmp_path / "output.txt"
        output.unlink(missing_ok=True)
        forks.stdin.write(json.dumps([environment, str(output), code]) + "\n")
        forks.stdin.flush()
        status = int(forks.stdout.readline())
        text = output.read_text()
        for secret in (*SECRETS, "mistyped-key"):
            assert secret not in text
            assert not any(
                secret.encode() in path.read_bytes()
                for path in folders.data.rglob("*")
                if path.is_file()
            )
        return SimpleNamespace(status=status, output=text, last=text.strip().rpartition("\n")[2])

    return SimpleNamespace(home=home, run=run, folder=folders.data / "raw" / "kaggle" / NAME)


def sign_in(home: Path, kind: str) -> dict[str, str]:
    """Leave credentials of one kind in `home`, or in the variables that are returned."""
    legacy = json.dumps({"username": USER, "key": KEY})
    later = (datetime.now(UTC) + timedelta(hours=6)).isoformat()
    oauth = {
        "refresh_token": "refresh",
        "access_token": OAUTH,
        "access_token_expiration": later,
        "username": USER,
    }
    places = {
        "access_token": (".kaggle/access_token", TOKEN + "\n"),
        "access_token.txt": (".kaggle/access_token.txt", TOKEN),
        "kaggle.json": (".kaggle/kaggle.json", legacy),
        "XDG": (".config/kaggle/kaggle.json", legacy),
        "KAGGLE_CONFIG_DIR": ("elsewhere/kaggle.json", legacy),
        "OAuth": (".kaggle/credentials.json", json.dumps(oauth)),
        "OAuth, old": (".kaggle/credentials.json", json.dumps({**oauth, "access_token": ""})),
    }
    if kind in places:
        place, content = places[kind]
        (home / place).parent.mkdir(parents=True)
        (home / place).write_text(content)
        (home / place).chmod(0o600)
    return {
        "KAGGLE_API_TOKEN": {"KAGGLE_API_TOKEN": TOKEN},
        "KAGGLE_CONFIG_DIR": {kind: str(home / "elsewhere")},
        "KAGGLE_KEY": {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY},
    }.get(kind, {})


@pytest.fixture
def notebook(folders, tmp_path, monkeypatch):
    """Runs notebook 01 with `dataset` "kaggle" against a server; gives its error and content."""
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)

    def run(server) -> SimpleNamespace:
        stored = folders.runs / "real" / "01_download.ipynb"
        stored.parent.mkdir(parents=True)
        for name, value in server.environment(home).items():
            monkeypatch.setenv(name, value)
        folder = workspace.PROJECT / "notebooks"
        try:
            papermill.execute_notebook(
                str(folder / stored.name),
                str(stored),
                {"run": "real", "dataset": "kaggle"},
                cwd=str(folder),
                kernel_name="python3",
                start_timeout=PATIENCE,
                iopub_timeout=PATIENCE,
                progress_bar=False,
            )
            error = None
        except papermill.PapermillExecutionError as caught:
            error = caught
        return SimpleNamespace(error=error, content=json.loads(stored.read_text()))

    return SimpleNamespace(home=home, run=run)
