"""Hosts: which one this is, what it lacks (with the real pip, offline) and what it lends.

The notebooks themselves run on imitations of the hosts in tests/hosts/, by `make hosts`.
"""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import nbformat
import pytest
from packaging.version import InvalidVersion, Version

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
    """A function that makes this look like a host.

    The host's folders lie below a temporary one, which it returns.
    """
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


def test_a_folder_of_a_package_s_name_is_no_package(monkeypatch, tmp_path):
    """Such as what a reader unpacks beside a notebook, whose folder Python searches first."""
    (tmp_path / "six_photographs").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not hosts.can_be_imported("six_photographs")
    (tmp_path / "six_photographs" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert hosts.can_be_imported("six_photographs")


@pytest.mark.parametrize("name", ["colab", "kaggle", "gradient", "local"])
def test_packages_are_brought_where_a_machine_is_lent_and_nowhere_else(name, host, monkeypatch):
    host(name)
    brought = []
    monkeypatch.setattr(hosts, "missing", lambda: ["captum", "ImageHash"])
    monkeypatch.setattr(hosts, "install", brought.extend)
    if name != "local":
        assert hosts.prepare() == name and brought == ["captum", "ImageHash"]
        return
    with pytest.raises(RuntimeError) as raised:
        hosts.prepare()
    assert brought == []
    command = f"{sys.executable} -m pip install captum ImageHash"
    for fact in (command, "make lab", str(hosts.PROJECT)):
        assert fact in str(raised.value)


def test_packages_older_than_those_tried_are_told_in_a_line(host, monkeypatch, tmp_path, capsys):
    host("local")
    monkeypatch.setattr(hosts, "missing", lambda: [])
    assert hosts.prepare() == "local" and capsys.readouterr().out == ""
    for name, version in (("numpy", "1.26.4"), ("pandas", "2.2.0rc1"), ("torch", "2.7.0+cu118")):
        installed(tmp_path, name, version)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert hosts.prepare() == "local"
    said = capsys.readouterr().out
    assert "numpy 1.26.4 (2.1)" in said and "torch 2.7.0+cu118 (2.11)" in said
    assert "pandas" not in said and "make lab" in said


@pytest.mark.parametrize("name", ["colab", "kaggle", "gradient", "local"])
def test_a_pytorch_that_lacks_what_is_needed_is_refused_and_not_replaced(
    name, host, monkeypatch, tmp_path
):
    """Gradient's public image has torch 2.1.1; notebook 04 would end in an AttributeError there."""
    host(name)
    monkeypatch.setattr(hosts, "install", None)
    installed(tmp_path, "torch", "2.1.1+cu121")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(RuntimeError) as raised:
        hosts.prepare()
    for fact in ("torch 2.1.1+cu121 (2.6)", "Gradient", "pip install --upgrade torch", "make lab"):
        assert fact in str(raised.value)


def test_what_is_needed_is_not_newer_than_what_was_tried():
    for package, edition in hosts.NEEDED.items():
        assert edition <= hosts.TRIED[package]


def test_the_oldest_packages_that_were_tried_are_those_of_the_imitated_hosts():
    text = (hosts.PROJECT / "tests" / "hosts" / "colab.txt").read_text(encoding="utf-8")
    for package, (major, minor) in hosts.TRIED.items():
        assert re.search(rf"^{package}=={major}\.{minor}\.", text, re.MULTILINE), package


def test_where_pip_is_missing_too_the_command_brings_it(host, monkeypatch):
    host("local")
    plain = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("pip", "captum") else plain(name)
    )
    with pytest.raises(RuntimeError, match="ensurepip.*pip install captum"):
        hosts.prepare()


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
    """A Python of its own with `kept` 1.0, and a folder of wheels instead of a registry.

    A function of code that gives the process which ran it; `packages` is where they lie.
    """
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

    def run(code: str) -> subprocess.CompletedProcess:
        return subprocess.run([binary, "-c", code], env=environment, capture_output=True, text=True)

    run.packages = next((folder / "env").rglob("site-packages"))
    return run


def installed(folder: Path, name: str, version: str) -> Path:
    """What an installed package leaves for importlib.metadata, and nothing else."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return info


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


def test_a_version_that_pip_refuses_does_not_keep_pip_from_the_rest(python):
    """Ubuntu's distro-info is one; pip refuses the whole list of constraints for it since 24.1."""
    foreign = installed(python.packages, "distro_info", "1.1build1")
    done = python(
        "from helpers import hosts; print(*hosts.constraints()); hosts.install(['fits'])\n"
        "import fits, kept; print(fits.version, kept.version)"
    )
    shutil.rmtree(foreign)
    assert done.returncode == 0, done.stderr
    assert "kept==1.0" in done.stdout and "distro" not in done.stdout
    assert done.stdout.split()[-2:] == ["1.0", "1.0"]


@pytest.mark.parametrize("command", ["run", "train", "preprocess"])
def test_a_command_of_a_bare_python_ends_in_a_sentence_and_installs_nothing(command, python):
    before = sorted(path.name for path in python.packages.iterdir())
    done = python(
        f"import sys, runpy; sys.argv = ['{command}', '--help']; "
        f"runpy.run_module('helpers.{command}', run_name='__main__')"
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "torch" in done.stderr and "make lab" in done.stderr
    assert sorted(path.name for path in python.packages.iterdir()) == before


RIGHT = """1 1.0 2.14.0+cu128 2!1.0 1.0a1 1.0.alpha 1.0-rc.2 1.0rc 1.0.post1 1.0-1 1.0.dev3 v1.0
1.0a1.post2.dev3 2026.1 1.0preview4 1.0-r4 1.0C2 1.0+a.b-c_1 1.0.post 1.0dev"""
WRONG = """1.1build1 1.0-1ubuntu2 1.0~rc1 1.0+ 1..0 1.0a+ unknown 0.23ubuntu1 1.0.0-SNAPSHOT
1.0+a..b !1 1.0a1b2 1,0 1.٣"""


@pytest.mark.parametrize("version", [*RIGHT.split(), *WRONG.split()])
def test_a_version_is_one_where_packaging_says_so(version):
    try:
        Version(version)
        right = True
    except InvalidVersion:
        right = False
    assert bool(hosts.VERSION.fullmatch(version)) == right


def test_the_package_that_python_imports_is_the_one_that_is_kept(monkeypatch, tmp_path):
    """A reader's own numpy hides the system's; names differ in '-', '_' and capitals alone."""
    for place, version in (("own", "2.0"), ("system", "1.0")):
        installed(tmp_path / place, "twice_There" if place == "own" else "twice-there", version)
    installed(tmp_path / "own", "-broken", "1.0")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "own"), str(tmp_path / "system")])
    assert hosts.constraints() == ["twice-there==2.0"]


@pytest.mark.parametrize(
    "version, right",
    [
        ((3, 10, 13), False),
        ((3, 11, 0), True),
        ((3, 13, 9), True),
        ((3, 14, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_a_python_that_the_series_does_not_take_is_named(version, right, monkeypatch):
    number = ".".join(map(str, version))
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(sys, "version", f"{number} (main) [GCC]")
    monkeypatch.setattr(hosts, "missing", lambda: [])
    if right:
        assert hosts.prepare() == hosts.name()
        return
    with pytest.raises(RuntimeError) as raised:
        hosts.prepare()
    for fact in ("3.11 to 3.13", f"this is {number}:", "kernel"):
        assert fact in str(raised.value)


def test_the_pythons_of_the_readme_are_those_that_are_taken():
    oldest, newest = re.search(
        r"Python 3\.(\d+) to 3\.(\d+)", (hosts.PROJECT / "README.md").read_text(encoding="utf-8")
    ).groups()
    assert [oldest, newest] == [str(hosts.OLDEST[1]), str(hosts.NEWEST[1])]


@pytest.mark.parametrize("minor", [7, 8, 9, 10])
def test_an_old_python_can_read_the_module_that_refuses_it(minor):
    source = (hosts.PROJECT / "helpers" / "hosts.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, minor))
    imported = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert imported[0] == "__future__"  # without it, `list[str]` stops 3.8
    whole = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    assert "importlib.metadata" not in whole, "not there in 3.7"


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
    """The helpers as a git repository on this machine.

    Gives the environment in which the public address leads there.
    """
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


def test_a_notebook_alone_without_git_says_so(remote, tmp_path):
    (tmp_path / "here").mkdir()
    done = first_cell(tmp_path / "here", {**remote, "PATH": str(tmp_path)})
    last = done.stderr.strip().splitlines()[-1]
    assert "git" in last and f"{opening.address()}/archive/HEAD.zip" in last
    assert list((tmp_path / "here").iterdir()) == []


def test_a_notebook_alone_without_a_network_says_so(remote, tmp_path):
    done = first_cell(tmp_path, {**remote, "GIT_CONFIG_KEY_0": "url.file:///nowhere.insteadOf"})
    last = done.stderr.strip().splitlines()[-1]
    assert (
        "git could not fetch the helpers" in done.stderr
        and "switch the notebook's Internet on" in last
    )
    assert list(tmp_path.iterdir()) == []
