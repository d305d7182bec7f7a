"""Spoilt credentials, each named in a sentence; and secrets, which stand in no output and no file.

No credentials, every good kind, mistyped ones, a `kaggle.json` of the wrong shape and the notebook
that succeeds with one are in tests/photographs/test_kaggle.py. A reader who switches on debug
logging is shown addresses by urllib3 itself.
"""
# ruff: noqa: F811  (fixtures are imported by name)

import base64
import codecs
import json
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from helpers import workspace
from tests.conftest import PATIENCE
from tests.faults import limits
from tests.faults.test_server import QUICK, cut, gone, of_length, says, stall
from tests.kaggle_reader import NAME, SLUG, forks, notebook, reader, sign_in  # noqa: F401
from tests.loopback_kaggle import KEY, OAUTH, SECRETS, TOKEN, USER, LoopbackKaggle

KINDS = (
    "KAGGLE_API_TOKEN",
    "access_token",
    "access_token.txt",
    "KAGGLE_KEY",
    "kaggle.json",
    "XDG",
    "KAGGLE_CONFIG_DIR",
    "OAuth",
    "OAuth, old",
)
CREDENTIALS = {"access_token", "access_token.txt", "kaggle.json", "credentials.json"}
GOOD = json.dumps({"username": USER, "key": KEY})  # of kaggle.json
TURNED_DOWN = f"credentials in {{}}, so {NAME} was not downloaded"


# spoilt credentials


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("kaggle.json", "{", "no JSON"),
        ("kaggle.json", "", "empty"),
        ("kaggle.json", json.dumps({"username": USER}), "no JSON object with username and key"),
        (
            "kaggle.json",
            json.dumps({"username": 5, "key": None}),
            "no JSON object with username and key",
        ),
        ("kaggle.json", b"\xff\xfe\x00", "UTF-16"),
        ("kaggle.json", b"\xfc\xdf", "neither text nor JSON"),
        ("kaggle.json", None, "Is a directory"),
        ("credentials.json", "[", "no JSON"),
        ("credentials.json", "[]", "no JSON object with refresh_token"),
        (
            "credentials.json",
            json.dumps({"refresh_token": ""}),
            "no JSON object with refresh_token",
        ),
        ("credentials.json", None, "Is a directory"),
        ("access_token", "", "empty"),
        ("access_token.txt", " \n", "empty"),
        ("access_token", None, "Is a directory"),
        ("access_token", b"\xff\xfe\x00", "UTF-16"),
        # what editors and commands of other systems leave
        ("kaggle.json", codecs.BOM_UTF8 + GOOD.encode(), "byte order mark"),
        ("kaggle.json", GOOD.encode("utf-16"), "UTF-16"),
        ("kaggle.json", GOOD.encode("utf-16-be"), "UTF-16"),
        ("kaggle.json", GOOD.replace('"', "\u201c"), "curly quotes"),
        ("kaggle.json", GOOD.replace('"', "'"), "line 1, column 2"),
        ("kaggle.json", GOOD.replace("}", ",}"), "line 1"),
        ("kaggle.json", GOOD.replace("{", "{\n// mine\n"), "line 2, column 1"),
        ("kaggle.json", "{\\rtf1\\ansi " + GOOD, "RTF"),
        ("kaggle.json", TOKEN, "access_token"),
        ("kaggle.json", json.dumps({"username": USER, "key": KEY + "\n"}), "key is not one word"),
        ("access_token", codecs.BOM_UTF8 + TOKEN.encode(), "byte order mark"),
        ("access_token", f"{TOKEN}\r\n".encode("utf-16"), "UTF-16"),
        ("access_token", f'"{TOKEN}"', "in quotes"),
        ("access_token", f"token: {TOKEN}", "not one word"),
        ("access_token", GOOD, "belongs into kaggle.json"),
        ("access_token.txt", f"\u2018{TOKEN}\u2019", "in quotes"),
    ],
)
def test_a_spoilt_file_is_named_with_what_is_wrong(name, content, said, reader, tiny_zip):
    path = reader.home / ".kaggle" / name
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(0o600)
    with LoopbackKaggle(tiny_zip) as server:
        result = reader.run(server)
    place = name if name == "kaggle.json" else f"~/.kaggle/{name.removesuffix('.txt')}"
    assert result.status == 1 and f"so {NAME} was not downloaded" in result.last
    assert f"credentials in {place} (" in result.last and said in result.last
    assert "Create new ones under API" in result.last and "zip" not in server.names()


@pytest.mark.parametrize(
    "name, content",
    [
        ("kaggle.json", GOOD.replace(",", ",\r\n").encode() + b"\r\n"),
        ("kaggle.json", GOOD.replace(",", "\t,\n\n").encode()),
        ("access_token", TOKEN.encode() + b"\r\n"),
        ("access_token.txt", b"\n" + TOKEN.encode() + b"  \n\n"),
    ],
)
def test_lines_that_end_otherwise_do_no_harm(name, content, reader, tiny_zip):
    path = reader.home / ".kaggle" / name
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    with LoopbackKaggle(tiny_zip) as server:
        result = reader.run(server)
    assert (result.status, result.output) == (0, f"at {SLUG}\n")


@pytest.mark.parametrize(
    "place, to",
    [
        (".kaggle/kaggle.json.txt", "~/.kaggle/kaggle.json"),
        (".kaggle/kaggle (1).json", "~/.kaggle/kaggle.json"),
        (".kaggle/Kaggle.JSON", "~/.kaggle/kaggle.json"),
        ("Downloads/kaggle.json", "~/.config/kaggle/kaggle.json"),
        ("kaggle.json", "~/.config/kaggle/kaggle.json"),
        ("Downloads/access_token.txt", "~/.kaggle/access_token"),
        (".kaggle/access_token.txt.txt", "~/.kaggle/access_token"),
    ],
)
def test_credentials_where_nobody_looks_are_named_with_their_place(place, to, reader, tiny_zip):
    path = reader.home / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(GOOD)
    with LoopbackKaggle(tiny_zip) as server:
        result = reader.run(server)
    assert result.status == 1 and server.names() == []
    assert f"There is ~/{place}: move it to {to}." in result.last


def test_variables_that_lead_nowhere_are_named(reader, tiny_zip):
    file = reader.home / "mine.json"
    file.write_text(GOOD)
    with LoopbackKaggle(tiny_zip) as server:
        result = reader.run(server, KAGGLE_CONFIG_DIR=str(file), KAGGLE_USERNAME=USER)
        assert "KAGGLE_CONFIG_DIR is a file, ~/mine.json" in result.last
        assert "KAGGLE_KEY is not" in result.last
        result = reader.run(server, KAGGLE_USERNAME=USER, KAGGLE_KEY=f"'{KEY}'")
        assert "KAGGLE_USERNAME and KAGGLE_KEY (in quotes" in result.last
    assert server.names() == []


def test_one_spoilt_file_does_not_hide_a_good_one(reader, tiny_zip):
    """An empty token is passed over; a folder in its place ends the client: both are named."""
    sign_in(reader.home, "kaggle.json")
    token = reader.home / ".kaggle" / "access_token"
    token.touch(mode=0o600)
    with LoopbackKaggle(tiny_zip) as server:
        assert (
            reader.run(server, f"print('at', kaggle.fetch({NAME + '/2'!r}).name)").last
            == f"at {SLUG}@2"
        )
        token.unlink()
        token.mkdir()
        assert (
            TURNED_DOWN.format("~/.kaggle/access_token (Is a directory) and kaggle.json")
            in reader.run(server).last
        )


@pytest.mark.parametrize("kind", ["kaggle.json", "access_token"])
def test_a_file_that_others_may_read_is_told_and_used(kind, reader, tiny_zip):
    """Its mode stays as it is: it may be shared on purpose."""
    sign_in(reader.home, kind)
    path = reader.home / ".kaggle" / kind
    path.chmod(0o644)
    with LoopbackKaggle(tiny_zip) as server:
        result = reader.run(server)
    assert result.output.splitlines() == [
        f"other users of this machine may read your {kind}: hide it with chmod 600",
        f"at {SLUG}",
    ]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.long
@pytest.mark.parametrize("kind", ["kaggle.json", "access_token", "OAuth"])
def test_a_file_that_the_reader_may_not_read_is_named(kind, folders, tiny_zip, tmp_path):
    sign_in(tmp_path, kind)
    path = next((tmp_path / ".kaggle").iterdir())
    path.chmod(0)
    with LoopbackKaggle(tiny_zip) as server:
        result = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from helpers.photographs import kaggle\nkaggle.fetch({NAME!r})",
            ],
            text=True,
            env={**os.environ, "ATTENTION_HEADLESS": "1", **server.environment(tmp_path)},
            cwd=workspace.PROJECT,
            preexec_fn=limits.no_overrides,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert "DownloadDataset" not in server.names()
    place = path.name if kind == "kaggle.json" else f"~/.kaggle/{path.name}"
    assert (
        TURNED_DOWN.format(f"{place} (Permission denied)") in result.stderr
        and result.returncode == 1
    )


@pytest.mark.parametrize(
    "kind, plan, place",
    [
        ("KAGGLE_API_TOKEN", {"status": 401}, "KAGGLE_API_TOKEN"),
        ("kaggle.json", {"status": 401}, "kaggle.json"),
        ("OAuth", {"status": 401}, "~/.kaggle/credentials.json"),
        ("OAuth, old", {"oauth": 401}, "~/.kaggle/credentials.json"),
    ],
)
def test_credentials_that_ended_are_told(kind, plan, place, reader, tiny_zip):
    """At the download; and where the client asks for a new access token and deletes its file."""
    with LoopbackKaggle(tiny_zip, **plan) as server:
        result = reader.run(server, **sign_in(reader.home, kind))
    assert result.status == 1 and TURNED_DOWN.format(place) in result.last


def test_a_token_longer_than_a_path_is_not_shown(reader, tiny_zip):
    """The client looks whether the token is a file: its error names the token."""
    with LoopbackKaggle(tiny_zip) as server:
        result = reader.run(server, KAGGLE_API_TOKEN=TOKEN + "x" * 400)
    assert TURNED_DOWN.format("KAGGLE_API_TOKEN") in result.last


# secrets


def forms() -> set[str]:
    """Each secret plain, as in a Basic header, in base64, in an address; and the signed address."""
    plain = {*SECRETS, *(f"{USER}:{secret}" for secret in SECRETS)}
    coded = {base64.b64encode(secret.encode()).decode().rstrip("=") for secret in plain}
    return {
        *plain,
        *coded,
        *map(urllib.parse.quote_plus, {*plain, *coded}),
        "storage.localhost",
        "signature=",
    }


def show(text: bytes, where) -> None:
    """Fails where a secret stands in `text`."""
    for secret in forms():
        assert secret.encode() not in text, f"{secret} stands in {where}"


def search(*places: Path) -> int:
    """Look into every file but those of credentials; returns how many there were."""
    paths = [
        path
        for place in places
        for path in place.rglob("*")
        if path.is_file() and path.name not in CREDENTIALS
    ]
    for path in paths:
        show(path.read_bytes(), path)
    return len(paths)


TELL = f"""
import traceback
def tell(error):
    while error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        # without the test's own
        told.stack[:] = [frame for frame in told.stack if frame.filename != '<string>']
        print(*told.format(chain=False), repr(error), vars(error))
        error = error.__cause__ or error.__context__
try:
    print('at', kaggle.fetch({NAME!r}).name)
except Exception as error:
    tell(error)
    raise
"""
FULL = "from tests.faults import limits\nlimits.full_disk(2 << 20)()\n"
FAILURES = {
    "gone": ({"faults": (gone,)}, ""),  # what the client prints then holds the signed address
    "401": ({"status": 401}, ""),
    "403": ({"status": 403}, ""),
    "404": ({"status": 404}, ""),
    "429": ({"status": 429, "headers": {"Retry-After": "9"}}, ""),
    "500": ({"status": 500}, ""),
    "cuts": ({"cuts": (5,) * 50}, ""),
    "stall": ({"faults": (stall,) * 9}, "kaggle.PATIENCE = 0.1\n"),
    "over": ({"faults": (cut, says(403))}, ""),
    "trouble": ({"faults": (cut, *[says(500)] * 50)}, ""),
    "length": ({"faults": (of_length(99),)}, ""),
    "no zip": ({"faults": (of_length(-99),)}, ""),
    "full": ({}, FULL),
}
ROTATED = [(failure, KINDS[number % len(KINDS)]) for number, failure in enumerate(FAILURES)][::2]
ALL = [(failure, kind) for failure in FAILURES for kind in KINDS if (failure, kind) not in ROTATED]


@pytest.mark.parametrize(
    "failure, kind", ROTATED + [pytest.param(*one, marks=pytest.mark.long) for one in ALL]
)
def test_no_failure_tells_a_secret(failure, kind, reader, tiny_zip, folders):
    """Neither in what is shown, nor in a file, nor in an exception or those behind it.

    The variables of their frames are looked at, too. With progress shown: then the client prints
    addresses.
    """
    plan, before = FAILURES[failure]
    with LoopbackKaggle(tiny_zip, **plan) as server:
        result = reader.run(
            server, QUICK + before + TELL, **sign_in(reader.home, kind), ATTENTION_HEADLESS=""
        )
    assert (
        result.status == 1
        and "KaggleFailed" in result.last
        and "owner = 'shonenkov'" in result.output
    )
    show(result.output.encode(), "the output")
    search(folders.data, reader.home)
    sent = json.dumps(server.requests)  # the secrets were at work
    assert any(
        secret in sent
        for secret in (TOKEN, OAUTH, base64.b64encode(f"{USER}:{KEY}".encode()).decode())
    )


NOTEBOOKS = [
    ("KAGGLE_API_TOKEN", {"faults": (cut, says(403))}, "KaggleFailed"),
    *((kind, {}, None) for kind in KINDS if kind != "kaggle.json"),
    ("kaggle.json", {"status": 403}, "KaggleFailed"),
    ("OAuth", {"faults": (of_length(-99),)}, "KaggleFailed"),
    ("KAGGLE_KEY", {"status": 500}, "KaggleFailed"),
    ("OAuth, old", {"oauth": 401}, "KaggleFailed"),
]


@pytest.mark.long
@pytest.mark.parametrize("kind, plan, error", NOTEBOOKS)
def test_the_notebook_tells_no_secret(
    kind, plan, error, notebook, tiny_zip, folders, monkeypatch, capfd
):
    """Through papermill: the executed notebook, all of data, runs and home, both streams."""
    for name, value in sign_in(notebook.home, kind).items():
        monkeypatch.setenv(name, value)
    with LoopbackKaggle(tiny_zip, **plan) as server:
        result = notebook.run(server)
    assert (result.error.ename if result.error else None) == error
    assert search(folders.data, folders.runs, notebook.home) > (80 if error is None else 0)
    assert (folders.runs / "real" / "01_download.ipynb").is_file()
    while result.error:
        show((repr(result.error) + str(vars(result.error))).encode(), "the exception")
        result.error = result.error.__cause__ or result.error.__context__
    show("".join(capfd.readouterr()).encode(), "the streams")


def test_the_search_finds_what_it_searches(tmp_path):
    for secret in forms():
        (tmp_path / "a.log").write_text(f"GET {secret} 200")
        with pytest.raises(AssertionError, match="stands in"):
            search(tmp_path)
