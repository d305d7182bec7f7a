"""bench/full_table.py: it runs on any table in the layout, and what it counts can be counted."""

import numpy as np
import pandas as pd
import pytest

from helpers.photographs import lookalikes
from helpers.photographs.sample import make_sample
from tests.bench.conftest import record  # noqa: F401 - puts bench/ on the path

import growth  # isort: skip


def test_relatives_of_a_drawn_table_are_counted(run_program, tmp_path):
    table = make_sample(tmp_path / "sample", count=300)
    result = run_program("full_table", str(tmp_path / "sample" / "marking.csv"))
    sides = result["figures"]["leaks"]
    assert list(sides) == ["tutorial", "our validation", "our test"]
    assert sides["tutorial"]["leak"] > 0, "the sample has relatives, and photographs were dealt"
    for ours in ("our validation", "our test"):
        assert sides[ours]["leak"] == 0 and sides[ours]["photographs"] > 0
    assert set(result["figures"]["baselines"]) == {"tutorial", "ours"}
    assert result["data"]["photographs"] == len(table) == 300
    grown = pd.DataFrame(result["figures"]["growth"])
    assert grown.groupby("part", sort=False)["rows"].apply(list).to_dict() == {
        "bootstrap": [300, 600, 1200],
        "look-alikes": [75, 150, 300],
        "audit, figures of maps": [300, 600, 1200],
        "audit, tables by class": [300, 600, 1200],
    }
    assert (grown[["seconds", "cpu_seconds"]] > 0).all(axis=None)
    assert set(result["figures"]["made"]) == set(grown["part"])


def test_a_repeated_table_has_no_id_and_no_group_twice():
    table = pd.DataFrame({"image_id": ["a", "b", "c"], "group": [0, 1, 1], "target": [0, 1, 0]})
    four = growth.repeat(table, 4)
    assert len(four) == four["image_id"].nunique() == 12
    assert four.groupby("group").size().tolist() == [1, 2] * 4
    assert four["target"].tolist() == [0, 1, 0] * 4
    assert growth.repeat(table, 0.7)["target"].tolist() == [0, 1]


@pytest.mark.parametrize("count", [2, 30, 1500])
def test_as_many_made_hashes_are_near_as_are_said_to_be(count):
    found = lookalikes.near(growth.made_hashes(count), lookalikes.DISTANCE)
    assert len(found) == round(growth.PROPOSED * count * (count - 1) / 2)


def test_memory_is_that_of_the_work_in_a_process_of_its_own(monkeypatch):
    """A part that holds 100 MB is said to, though this process has held more."""
    held = np.ones(40_000_000)
    del held
    table = pd.DataFrame({"image_id": ["a"], "source": "A", "target": 0, "group": 0})
    rows = growth.measure(table.assign(split="test"), {"holds": growth.Part(hold, (1, 2), "")})
    if rows[0]["bytes"] is None:
        pytest.skip("there is no /proc here")
    assert rows[0]["bytes"] == pytest.approx(100e6, rel=0.1)
    assert rows[1]["bytes_growth"] == pytest.approx(2, rel=0.1)


def hold(table: pd.DataFrame):
    """100 MB for each row."""
    return lambda: np.ones(12_500_000 * len(table))
