"""The Makefile on machines that have other Pythons, or none: stand-ins of a few lines each."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
TOOLS = ("sh", "id", "make", "mkdir", "rm", "touch")
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")

# a Python of a version: it judges, makes an environment of itself, and "installs"
STAND_IN = """#!/bin/sh
case "$1 $2" in
  "--version ") echo "Python {version}" ;;
  "-c "*) case "$2" in *version_info*) exit {wrong} ;; esac ;;
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip") echo "pip of {version}" ;;
  "-m helpers.run") echo "ran by {version}" ;;
esac
"""


@pytest.fixture
def place(tmp_path) -> Path:
    """The Makefile and the requirements alone, in a folder with a blank in its name."""
    folder = tmp_path / "my project"
    (folder / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(PROJECT / name, folder)
    for name in TOOLS:
        (folder / "bin" / name).symlink_to(shutil.which(name))
    (folder / "bin" / "cp").symlink_to(shutil.which("cp"))
    return folder


def put(folder: Path, name: str, version: str) -> Path:
    """A stand-in for a Python of a version, on the path as `name`."""
    minor = int(version.split(".")[1])
    binary = folder / "bin" / name
    binary.write_text(STAND_IN.format(version=version, wrong=int(not 11 <= minor <= 13)))
    binary.chmod(0o755)
    return binary


def make(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [shutil.which("make"), *words],
        cwd=folder,
        env={"PATH": str(folder / "bin")},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "there, taken",
    [
        ({"python3": "3.12.1"}, "3.12.1"),
        ({"python3": "3.9.18", "python3.13": "3.13.0"}, "3.13.0"),
        ({"python3": "3.14.0", "python3.11": "3.11.7", "python3.13": "3.13.0"}, "3.11.7"),
        ({"python3": "3.9.18", "python": "3.12.1"}, "3.12.1"),  # as conda has it
        ({"python3.11": "3.9.18", "python3": "3.13.0"}, "3.13.0"),  # a name that is not true
    ],
)
def test_a_python_that_the_pins_take_is_found_by_whatever_name(there, taken, place):
    for name, version in there.items():
        put(place, name, version)
    done = make(place, "tutorial")
    assert done.returncode == 0 and f"ran by {taken}" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "there", [{}, {"python3": "3.9.18"}, {"python3": "3.14.0", "python3.10": "3.10.1"}]
)
def test_where_there_is_none_the_first_line_says_which_are_taken(there, place):
    for name, version in there.items():
        put(place, name, version)
    done = make(place, "tutorial")
    assert done.returncode == 2 and "Python 3.11, 3.12 or 3.13" in done.stdout
    assert there.get("python3", "") in done.stdout and "BASE=" in done.stdout
    assert not (place / ".venv").exists()


def test_a_python_that_the_reader_names_is_judged_too(place):
    put(place, "python3", "3.12.1")
    old = put(place, "theirs", "3.10.4")
    done = make(place, "tutorial", f"BASE={old.name}")
    assert done.returncode == 2 and "3.10.4" in done.stdout and not (place / ".venv").exists()
    new = put(place, "newer", "3.13.2")
    assert "ran by 3.13.2" in make(place, "tutorial", f"BASE={new.name}").stdout


def test_an_environment_whose_python_has_gone_is_made_again(place):
    """As in a project that was copied from another machine."""
    put(place, "python3", "3.12.1")
    assert "pip of" in make(place, "tutorial").stdout
    assert "pip of" not in make(place, "tutorial").stdout, "it is there"
    python = place / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/gone/python3.12")
    (place / ".venv" / "old").touch()
    done = make(place, "tutorial")
    assert "pip of" in done.stdout and "ran by 3.12.1" in done.stdout, done.stderr
    assert not (place / ".venv" / "old").exists()


def test_an_environment_of_another_python_is_told_and_left(place):
    put(place, "python3", "3.12.1")
    old = put(place, "old", "3.9.18")
    (place / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(old, place / ".venv" / "bin" / "python")
    venv = (place / "bin" / "python3").read_text().replace('cp "$0" "$3/bin/python"', "true")
    (place / "bin" / "python3").write_text(venv)  # venv leaves a Python that is there
    done = make(place, "tutorial")
    assert done.returncode == 2 and ".venv is of another Python" in done.stdout
    assert (place / ".venv" / "bin" / "python").exists()


def test_no_call_needs_a_shell_that_an_old_make_does_not_start():
    """GNU make before 4.3 starts $(shell ...) itself where no letter of this list is in it.

    It then looks for `command` on the disk, where it is not.
    """
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    builtins = ("command", "test", "type", "if", "for", "cd", "ulimit")
    for line in text.splitlines():
        for call in line.split("$(shell ")[1:]:
            first = call.split()[0]
            assert first not in builtins or set(call) & set("#;\"*?[]&|<>{}$`^~!\\'"), line


@pytest.mark.skipif(os.name != "posix", reason="a folder of POSIX")
def test_a_temporary_folder_with_a_blank_loses_nothing(place, tmp_path):
    """What `make test` deletes is its own."""
    put(place, "python3", "3.12.1")
    (place / "bin" / "cat").symlink_to(shutil.which("cat"))
    temporary = tmp_path / "my temporary"
    temporary.mkdir()
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "own").touch()
    make(place, "test", f"TMPDIR={temporary}", "PARTS=")
    assert (tmp_path / "my" / "own").exists() and len(list(temporary.iterdir())) == 1
