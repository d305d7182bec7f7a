"""Hosts: which one this is, what it lacks (with the real pip, offline) and what it lends. The notebooks themselves run
on imitations of the hosts in tests/hosts/, by `make test-hosts`."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import nbformat
import pytest

from helpers import hosts, workspace
from helpers.photographs import kaggle
from tests.conftest import commit_all
from tests.notebooks import opening

VARIABLES = [
    *hosts.SIGNS.values(),
    *hosts.SECRETS,
    "ATTENTION_DATA",
    "ATTENTION_RUNS",
    "ATTENTION_HEADLESS",
    "KAGGLE_CONFIG_DIR",
]


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A function that makes this look like a host whose folders lie below a temporary one, which it returns."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")  # and what a test sets is undone
        monkeypatch.delenv(variable)
    monkeypatch.setattr(hosts, "ROOT", tmp_path)

    def become(name: str, *folders: str) -> Path:
        if name != "local":
            monkeypatch.setenv(hosts.SIGNS[name], "Interactive")
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
        return tmp_path

    return become


@pytest.mark.parametrize(
    "there, expected",
    [
        ([], "local"),
        (["gradient"], "gradient"),
        (["colab"], "colab"),
        (["kaggle"], "kaggle"),
        (["colab", "kaggle"], "kaggle"),  # Kaggle's image is built from Colab's
    ],
)
def test_name(there, expected, host):
    for name in there:
        host(name)
    assert hosts.name() == expected


@pytest.mark.parametrize(
    "name, there, data, runs",
    [
        ("local", [], None, None),
        ("local", ["storage", "content/drive/MyDrive", "kaggle/working"], None, None),
        ("gradient", ["storage"], "storage/attention/data", "storage/attention/runs"),
        ("gradient", [], None, None),
        ("colab", ["content/drive/MyDrive"], None, "content/drive/MyDrive/attention/runs"),
        ("colab", ["content"], None, None),
        ("kaggle", ["kaggle/working"], "kaggle/temp/attention/data", None),
    ],
)
def test_folders_that_outlive_a_session_are_used_where_they_are(name, there, data, runs, host):
    root = host(name, *there)
    assert workspace.data_folder() == (root / data if data else workspace.PROJECT / "data")
    assert hosts.folder("runs") == (root / runs if runs else workspace.PROJECT / "runs")


def test_the_reader_s_own_folders_come_first(host, monkeypatch, tmp_path):
    host("gradient", "storage")
    monkeypatch.setenv("ATTENTION_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("ATTENTION_RUNS", str(tmp_path / "own"))
    assert (
        workspace.data_folder() == tmp_path / "mine"
        and workspace.run_folder("a") == tmp_path / "own" / "a"
    )


def test_every_package_is_looked_for_under_the_name_by_which_it_is_imported():
    lines = (hosts.PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line.split("==")[0] for line in lines if "==" in line]
    assert (
        set(hosts.MODULES) <= set(listed) and set(hosts.UNUSED) < set(listed) and len(listed) > 20
    )
    for package in set(listed) - set(hosts.UNUSED):
        assert importlib.util.find_spec(hosts.MODULES.get(package, package)), package
    assert hosts.missing() == []


def test_what_is_missing_is_named_without_its_version(monkeypatch):
    plain = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("cv2", "captum") else plain(name)
    )
    assert hosts.missing() == ["captum", "opencv-python-headless"]


def test_helpers_copied_alone_miss_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(hosts, "PROJECT", tmp_path)
    assert hosts.missing() == []


def wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    """A package of one empty module, as the smallest wheel there is."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python of its own with `kept` 1.0, and a folder of wheels instead of a registry: run(code) -> process."""
    folder = tmp_path_factory.mktemp("python")
    wheels = folder / "wheels"
    wheels.mkdir()
    wheel(wheels, "kept", "1.0")
    wheel(wheels, "kept", "2.0")
    wheel(wheels, "fits", "1.0", "Requires-Dist: kept\n")
    wheel(wheels, "fits", "3.0", "Requires-Dist: kept>=2\n")  # the newest wants more than there is
    wheel(wheels, "never", "1.0", "Requires-Dist: kept>=2\n")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    binary = folder / "env" / "bin" / "python"
    # nothing of this machine's settings: what they add would not be offline
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHONPATH": str(hosts.PROJECT),
    }
    subprocess.run([binary, "-m", "pip", "install", "-q", "kept==1.0"], check=True, env=environment)
    return lambda code: subprocess.run(
        [binary, "-c", code], env=environment, capture_output=True, text=True
    )


def test_what_is_there_is_not_replaced_by_what_comes(python):
    done = python(
        "from helpers import hosts; hosts.install(['fits'])\n"
        "import fits, kept; print(fits.version, kept.version)"
    )
    assert done.stdout.split() == ["1.0", "1.0"], done.stderr


def test_what_could_come_only_by_replacing_is_refused_with_the_reason(python):
    done = python(
        "from helpers import hosts\ntry: hosts.install(['never'])\n"
        "except RuntimeError as error: print(error)\nimport kept; print(kept.version)"
    )
    message, version = done.stdout.strip().splitlines()
    assert (
        "could not install never" in message
        and "make lab" in message
        and "Internet" in message
        and version == "1.0"
    )


def test_an_old_python_is_named(monkeypatch):
    monkeypatch.setattr(hosts, "OLDEST", (3, 99))
    with pytest.raises(RuntimeError, match=r"needs Python 3\.99 or newer, and this is 3\.1"):
        hosts.prepare()


@pytest.fixture
def secrets(monkeypatch):
    """Colab's store of secrets. An imitation: the real module exists on Colab alone."""
    userdata = types.ModuleType("google.colab.userdata")
    for name in ("SecretNotFoundError", "NotebookAccessError", "TimeoutException"):
        setattr(userdata, name, type(name, (Exception,), {}))
    userdata.asked, userdata.held = [], {}

    def get(name):
        userdata.asked.append(name)
        answer = userdata.held.get(name, userdata.SecretNotFoundError())
        if isinstance(answer, Exception):
            raise answer
        return answer

    userdata.get = get
    colab = types.ModuleType("google.colab")
    colab.userdata = userdata
    monkeypatch.setitem(
        sys.modules, "google.colab", colab
    )  # `google` itself is there: protobuf brings it
    return userdata


def test_colab_s_secrets_reach_kaggle_s_client(host, secrets, monkeypatch, tmp_path):
    host("colab")
    monkeypatch.setenv("HOME", str(tmp_path))
    secrets.held = {
        "KAGGLE_API_TOKEN": secrets.NotebookAccessError(),
        "KAGGLE_USERNAME": "ada",
        "KAGGLE_KEY": "k",
    }
    hosts.lend_credentials(ask=True)
    assert kaggle.find_credentials() == ["KAGGLE_USERNAME and KAGGLE_KEY"]


def test_nobody_is_asked_in_a_headless_run_or_who_has_credentials(
    host, secrets, monkeypatch, tmp_path
):
    host("colab")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    with pytest.raises(kaggle.KaggleFailed, match="No credentials"):
        kaggle.download("owner/name", tmp_path)
    monkeypatch.delenv("ATTENTION_HEADLESS")
    with pytest.raises(kaggle.KaggleFailed, match="No credentials"):
        kaggle.download("owner/name", tmp_path)
    assert secrets.asked == list(hosts.SECRETS), "asked once, when somebody is there"
    secrets.asked.clear()
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_text("{}")
    monkeypatch.setattr(hosts, "lend_credentials", lambda **_: pytest.fail("there are credentials"))
    with pytest.raises(kaggle.KaggleFailed):
        kaggle.download("owner/name", tmp_path)


def test_gradient_s_kept_key_is_found(host, monkeypatch, tmp_path):
    root = host("gradient", "storage/kaggle")
    monkeypatch.setenv("HOME", str(tmp_path))
    (root / "storage" / "kaggle" / "kaggle.json").write_text(
        json.dumps({"username": "ada", "key": "k"})
    )
    (root / "storage" / "kaggle" / "kaggle.json").chmod(0o600)
    hosts.lend_credentials(ask=False)
    assert kaggle.find_credentials() == ["kaggle.json"]


@pytest.mark.parametrize("kind, expected", [("Batch", True), ("Interactive", False)])
def test_kaggle_s_saved_version_is_a_headless_run(kind, expected, host, monkeypatch):
    host("kaggle")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", kind)
    assert workspace.headless() is expected


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """The helpers as a git repository on this machine: the environment in which the public address leads there."""
    folder = tmp_path_factory.mktemp("remote") / "repository"
    folder.mkdir()
    shutil.copytree(
        hosts.PROJECT / "helpers", folder / "helpers", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copyfile(hosts.PROJECT / "requirements.txt", folder / "requirements.txt")
    commit_all(folder)
    return {
        **{name: value for name, value in os.environ.items() if name not in VARIABLES},
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{folder}.insteadOf",
        "GIT_CONFIG_VALUE_0": opening.address(),
        "PYTHONPATH": "",
    }


def first_cell(folder: Path, environment: dict) -> subprocess.CompletedProcess:
    """What the notebooks' first cell does in an empty folder, with no helpers above it."""
    code = (
        nbformat.read(opening.NOTEBOOKS[0], as_version=4).cells[2].source
        + "\nprint(workspace.PROJECT)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_notebook_alone_fetches_the_helpers_once(remote, tmp_path):
    for _ in range(2):
        done = first_cell(tmp_path, remote)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "host: local",
            str(tmp_path / opening.address().rsplit("/")[-1]),
        ]
        remote = {
            **remote,
            "GIT_CONFIG_KEY_0": "url.file:///nowhere.insteadOf",
        }  # the second time it is there


def test_a_notebook_alone_without_a_network_says_so(remote, tmp_path):
    done = first_cell(tmp_path, {**remote, "GIT_CONFIG_KEY_0": "url.file:///nowhere.insteadOf"})
    last = done.stderr.strip().splitlines()[-1]
    assert (
        "git could not fetch the helpers" in done.stderr
        and "switch the notebook's Internet on" in last
    )
    assert list(tmp_path.iterdir()) == []
