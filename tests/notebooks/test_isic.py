"""Notebook 01 with `dataset` "isic", through the command, against an archive on this machine."""

import json

from helpers.photographs.sample import make_sample
from tests.loopback_isic import archive_of
from tests.notebooks.conftest import series


def test_01_fetches_from_the_archive_once_whatever_breaks(tmp_path):
    folder = tmp_path / "drawn"
    table = make_sample(folder, count=60, side=64)
    environment = {
        "ATTENTION_DATA": str(tmp_path / "data"),
        "ATTENTION_RUNS": str(tmp_path / "runs"),
    }
    with archive_of(folder, set(), folder / "masks") as archive:
        environment |= archive.environment()
        archive.faults.cuts = 2
        archive.faults.expired = {table["image_id"][0]}
        words = ("--run", "real", "--dataset", "isic", "--only", "01")
        done = series(environment, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads((tmp_path / "runs" / "real" / "dataset.json").read_text())
        assert found["rows"] == 60 and found["masks"] > 0 and "CC-0" in found["licence"]
        assert archive.count("thumbnail") == 63 and archive.count("image") == 1
        archive.requests.clear()
        assert series(environment, *words).returncode == 0
        assert archive.requests == []


def test_01_says_why_nothing_came_and_the_command_ends_with_1(tmp_path):
    environment = {
        "ATTENTION_DATA": str(tmp_path / "data"),
        "ATTENTION_RUNS": str(tmp_path / "runs"),
        "ATTENTION_ISIC_API": "http://127.0.0.1:9/api/v2",
    }
    done = series(environment, "--run", "real", "--dataset", "isic", "--only", "01")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr and "sample" in done.stderr
    assert "Traceback" not in done.stderr
