"""Fetching from Kaggle: names, places, arrivals; its client against a server on this machine."""
# ruff: noqa: F811  (fixtures are imported by name)

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers import hosts, workspace
from helpers.photographs import kaggle, sources
from tests.conftest import files
from tests.kaggle_reader import (  # noqa: F401
    NAME,
    SLUG,
    forks,
    notebook,
    reader,
    sign_in,
)
from tests.loopback_kaggle import OAUTH, SECRETS, TOKEN, USER, LoopbackKaggle

MIB = 1 << 20  # Kaggle's client writes in pieces of so many bytes
LEFT = [
    f".{SLUG}.lock",
    SLUG,
    f"{SLUG}.manifest.csv",
]  # of a set that was fetched, and nothing else


def damage(content: bytes) -> bytes:
    """One byte changed, of a member that is stored as it is: only its CRC tells."""
    at = len(content) // 4
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


# Kaggle, without its client


@pytest.mark.parametrize(
    "name",
    [
        "",
        "set",
        "owner/",
        "owner/../x",
        "https://www.kaggle.com/datasets/a/b",
        "a/b/c",
        "a/b/3/4",
        "a/b\n",
    ],
)
def test_names_of_another_form_are_refused(name, folders):
    with pytest.raises(ValueError, match="is owner/name or owner/name/version"):
        kaggle.fetch(name)


@pytest.fixture
def added(tiny, folders, tmp_path, monkeypatch):
    """A function that adds the set to a notebook on Kaggle, in a folder of /kaggle/input/."""
    monkeypatch.setattr(hosts, "ROOT", tmp_path)

    def add(place: str) -> Path:
        return Path(shutil.copytree(tiny, tmp_path / "kaggle" / "input" / place))

    return add


@pytest.mark.parametrize("name", [NAME, f"{NAME}/3"])
@pytest.mark.parametrize("place", [SLUG, f"datasets/{NAME}"])
def test_on_kaggle_what_was_added_to_the_notebook_is_used_in_place(
    place, name, added, folders, monkeypatch
):
    monkeypatch.setattr(kaggle, "download", None)
    folder = added(place)
    found = sources.find_dataset("kaggle", kaggle_dataset=name)
    assert found["csv"] == str(folder / "marking.csv") and found["kaggle_dataset"] == name
    assert files(folders.data) == set()


def test_a_set_whose_owner_cannot_be_known_is_told(added, capsys):
    folder = added(SLUG)
    assert kaggle.fetch(NAME) == folder
    said = capsys.readouterr().out
    assert str(folder) in said and NAME in said
    own = added(f"datasets/{NAME}")
    assert kaggle.fetch(NAME) == own and capsys.readouterr().out == ""


def test_a_set_of_another_owner_is_not_taken_for_it(added, arriving, tiny_zip):
    added(f"datasets/somebody/{SLUG}")
    arriving.content = [tiny_zip.read_bytes()]
    assert kaggle.fetch(NAME) == arriving.folder


@pytest.fixture
def arriving(folders, monkeypatch):
    """Content that "Kaggle" sends next, and the folders; without any it may not be asked."""
    folder = folders.data / "raw" / "kaggle" / NAME
    found = SimpleNamespace(
        content=[], folder=folder, archive=folder.with_name(f"{SLUG}.download") / f"{SLUG}.zip"
    )

    def arrive(name, folder):
        folder.mkdir(parents=True, exist_ok=True)
        found.archive.write_bytes(found.content.pop(0))

    monkeypatch.setattr(kaggle, "download", arrive)
    return found


def test_a_zip_that_arrived_and_was_not_unpacked_is_not_asked_for_again(arriving, tiny_zip):
    arriving.archive.parent.mkdir(parents=True)
    shutil.copy(tiny_zip, arriving.archive)
    (arriving.folder.with_name(f".{SLUG}.unpacking")).mkdir()
    assert kaggle.fetch(NAME) == arriving.folder
    assert sorted(os.listdir(arriving.folder.parent)) == LEFT


def test_a_zip_stays_where_the_disk_is_full(arriving, tiny_zip, monkeypatch):
    arriving.content = [tiny_zip.read_bytes()]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0, total=9 * MIB))
        with pytest.raises(OSError, match="make room"):
            kaggle.fetch(NAME)
    assert kaggle.fetch(NAME) == arriving.folder


@pytest.mark.parametrize("spoil", [damage, lambda content: content[:-100]])
def test_a_damaged_arrival_is_removed_and_asked_for_again(spoil, arriving, tiny_zip):
    arriving.content = [spoil(tiny_zip.read_bytes()), tiny_zip.read_bytes()]
    with pytest.raises(
        kaggle.KaggleFailed, match=f"came from Kaggle as {NAME} was removed; run this again"
    ):
        kaggle.fetch(NAME)
    assert files(arriving.folder.parent) == set()
    assert kaggle.fetch(NAME) == arriving.folder


def test_a_zip_left_beside_an_unpacked_set_is_removed(arriving, tiny_zip):
    arriving.content = [tiny_zip.read_bytes()]
    kaggle.fetch(NAME)
    arriving.archive.parent.mkdir()
    arriving.archive.touch()
    assert kaggle.fetch(NAME) == arriving.folder
    assert sorted(os.listdir(arriving.folder.parent)) == LEFT


def test_versions_lie_side_by_side(arriving, tiny_zip):
    arriving.content = 2 * [tiny_zip.read_bytes()]
    arriving.archive = arriving.folder.with_name(f"{SLUG}@3.download") / f"{SLUG}.zip"
    assert kaggle.fetch(f"{NAME}/3") == arriving.folder.with_name(f"{SLUG}@3")


@pytest.mark.parametrize(
    "kind, scheme",
    [
        ("KAGGLE_API_TOKEN", f"Bearer {TOKEN}"),
        ("access_token", f"Bearer {TOKEN}"),
        ("access_token.txt", f"Bearer {TOKEN}"),
        ("KAGGLE_KEY", "Basic "),
        ("kaggle.json", "Basic "),
        ("XDG", "Basic "),
        ("KAGGLE_CONFIG_DIR", "Basic "),
        ("OAuth", f"Bearer {OAUTH}"),
        ("OAuth, old", f"Bearer {OAUTH}"),
    ],
)
def test_every_kind_of_credentials_fetches_the_set(kind, scheme, reader, tiny_zip):
    with LoopbackKaggle(tiny_zip) as server:
        result = reader.run(server, **sign_in(reader.home, kind))
    assert (result.status, result.output) == (0, f"at {SLUG}\n")
    assert server.names()[-2:] == ["DownloadDataset", "zip"]
    asked = server.requests[-2]
    assert asked["headers"]["Authorization"].startswith(scheme)
    assert json.loads(asked["body"]) == {"ownerSlug": NAME.split("/")[0], "datasetSlug": SLUG}
    assert len(files(reader.folder)) == 40 * 2 + 3  # the table, an unlabelled photograph, noise
    assert sorted(os.listdir(reader.folder.parent)) == LEFT


def test_a_second_run_downloads_nothing_and_a_version_is_asked_for(reader, tiny_zip):
    signed_in = sign_in(reader.home, "KAGGLE_API_TOKEN")
    with LoopbackKaggle(tiny_zip) as server:
        assert reader.run(server, **signed_in).status == 0
        came = len(server.requests)
        assert reader.run(server).last == f"at {SLUG}"  # without credentials, too
        assert len(server.requests) == came
        assert (
            reader.run(server, f"print(kaggle.fetch('{NAME}/3').name)", **signed_in).last
            == f"{SLUG}@3"
        )
        assert json.loads(server.requests[-2]["body"])["datasetVersionNumber"] == 3


def test_a_cut_download_goes_on_where_it_was_cut_and_shows_how_far_it_is(reader, tiny_zip):
    with LoopbackKaggle(tiny_zip, cuts=(5 * MIB // 2,)) as server:
        result = reader.run(server, ATTENTION_HEADLESS="", **sign_in(reader.home, "KAGGLE_KEY"))
    assert (result.status, server.names().count("zip")) == (0, 2)
    assert server.requests[-1]["headers"]["Range"] == f"bytes={2 * MIB}-"
    assert "B/s]" in result.output and "unpacking" in result.output
    assert str(reader.home) not in result.output


def test_a_killed_download_goes_on_in_the_next_run(reader, tiny_zip):
    # as the client waits to try again
    kill = "import os, time\ntime.sleep = lambda seconds: os._exit(9)\n"
    signed_in = sign_in(reader.home, "KAGGLE_KEY")
    with LoopbackKaggle(tiny_zip, cuts=(3 * MIB // 2,)) as server:
        assert reader.run(server, f"{kill}kaggle.fetch({NAME!r})", **signed_in).status == 9
        assert not reader.folder.exists()
        assert reader.run(server, **signed_in).last == f"at {SLUG}"
    assert server.names() == 2 * ["DownloadDataset", "zip"] + ["zip"]
    assert server.requests[-1]["headers"]["Range"] == f"bytes={MIB}-"


@pytest.mark.parametrize(
    "variables, answers, facts",
    [
        ({}, {}, ["No credentials", "Create a token", "~/.kaggle/access_token"]),
        ({"KAGGLE_API_TOKEN": "mistyped-key"}, {}, ["credentials in KAGGLE_API_TOKEN,"]),
        (
            {"KAGGLE_API_TOKEN": "mistyped-key"},
            {"bad_token": 401},
            ["credentials in KAGGLE_API_TOKEN,"],
        ),
        ({"KAGGLE_API_TOKEN": "mistyped-key\nx"}, {}, ["credentials in KAGGLE_API_TOKEN ("]),
        (
            {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": "mistyped-key"},
            {},
            ["credentials in KAGGLE_USERNAME and KAGGLE_KEY,"],
        ),
        (
            {"KAGGLE_API_TOKEN": TOKEN},
            {"status": 403},
            ["(403;", "KAGGLE_API_TOKEN", f"kaggle.com/datasets/{NAME}", "terms"],
        ),
        ({"KAGGLE_API_TOKEN": TOKEN}, {"status": 404}, ["(404)", f"kaggle.com/datasets/{NAME}"]),
        ({"KAGGLE_API_TOKEN": TOKEN}, {"status": 503}, ["(error 503)", "network", "disk"]),
    ],
)
def test_a_refusal_is_one_paragraph(variables, answers, facts, reader, tiny_zip, folders):
    with LoopbackKaggle(tiny_zip, **answers) as server:
        result = reader.run(server, **variables)
    check_refusal(result, facts, folders)


@pytest.mark.parametrize("kind", ["KAGGLE_API_TOKEN", "KAGGLE_KEY"])
def test_no_network_is_one_paragraph(kind, reader, tiny_zip, folders):
    with LoopbackKaggle(tiny_zip) as server:
        pass
    result = reader.run(server, **sign_in(reader.home, kind))
    check_refusal(result, ["(ProxyError)", "network"], folders)


def check_refusal(result, facts: list[str], folders) -> None:
    """It ends in one paragraph with these facts, and nothing is left."""
    assert result.status == 1
    for fact in [NAME, *facts]:
        assert fact in result.last
    assert result.last.startswith("helpers.photographs.kaggle.KaggleFailed: ")
    assert result.last.endswith(kaggle.WITHOUT.strip())
    assert result.output.count("Traceback") == 1 and "site-packages" not in result.output
    assert files(folders.data) == set()


def test_a_broken_kaggle_json_is_named(reader, tiny_zip, folders):
    (reader.home / ".kaggle").mkdir()
    (reader.home / ".kaggle" / "kaggle.json").write_text("[]")
    with LoopbackKaggle(tiny_zip) as server:
        result = reader.run(server)
    check_refusal(result, ["credentials in kaggle.json (", "username and key"], folders)


def test_masks_come_from_kaggle_too_and_are_joined_by_image_id(reader, tiny, tmp_path):
    masks = tmp_path / "masks" / "deep"
    masks.mkdir(parents=True)
    for path in sorted((tiny / "masks").iterdir())[:7]:
        shutil.copy(path, masks)
    archive = Path(shutil.make_archive(tmp_path / "masks", "zip", tmp_path / "masks"))
    name = "tschandl/ham10000-lesion-segmentations"
    code = (
        f"found = sources.find_dataset({str(tiny)!r}, masks='kaggle:{name}')\n"
        "print(found['masks'], found['masks_folder'])"
    )
    with LoopbackKaggle(archive) as server:
        result = reader.run(server, code, **sign_in(reader.home, "access_token"))
    folder = reader.folder.parent.parent / name / "deep"
    assert result.last == f"7 {folder}"


# the notebook


def test_the_notebook_fetches_the_set_and_keeps_the_secret(notebook, tiny_zip, folders):
    sign_in(notebook.home, "kaggle.json")
    with LoopbackKaggle(tiny_zip) as server:
        result = notebook.run(server)
    assert result.error is None
    assert server.names() == ["DownloadDataset", "zip"]
    found = workspace.read_json(folders.runs / "real" / "dataset.json", "01_download.ipynb")
    assert (found["rows"], found["kaggle_dataset"]) == (40, NAME)
    kept = [
        path
        for folder in (folders.runs, folders.data)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert len(kept) > 80
    for path in kept:
        assert not any(secret.encode() in path.read_bytes() for secret in SECRETS), path


def test_the_notebook_shows_the_paragraph_alone(notebook, tiny_zip):
    with LoopbackKaggle(tiny_zip) as server:
        result = notebook.run(server)
    assert result.error.ename == "KaggleFailed"
    shown = [
        output
        for cell in result.content["cells"]
        for output in cell.get("outputs", ())
        if output["output_type"] == "error"
    ]
    assert len(shown) == 1 and len(shown[0]["traceback"]) == 1
    assert shown[0]["traceback"][0] == f"KaggleFailed: {shown[0]['evalue']}"
    assert shown[0]["evalue"].startswith("No credentials for Kaggle were found")
