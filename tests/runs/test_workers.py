"""Where points run: in this process, in several, or on a cluster that is not there.

What a killed process or command costs: tests/faults/test_workers.py.
"""

import sys

import pytest

from helpers.runs import command, workers
from tests.runs.toys import write_notebook


@pytest.fixture
def series(tmp_path, folders, monkeypatch) -> None:
    """Toy notebooks in place of 01, 02 and 04, none of which is started."""
    declared = "run: str = 'sample'  # r\nseed: int = 0  # s"
    names = ("01_toy", "02_toy", "04_toy")
    paths = [write_notebook(tmp_path / f"{name}.ipynb", declared) for name in names]
    monkeypatch.setattr(command, "NOTEBOOKS", paths)


def test_each_point_with_its_reason_wherever_it_runs():
    with workers.chosen(0, "") as spread:
        assert list(spread(str.upper, ["a", "b"])) == [("a", "A"), ("b", "B")]
    with workers.chosen(2, "") as spread:
        assert dict(spread(str.upper, ["a", "b", "c"])) == {"a": "A", "b": "B", "c": "C"}
        assert dict(spread(str.upper, [])) == {}


ARGUMENTS = ["--run", "g", "--grid", "seed=0,1,2"]


def test_no_scheduler_there(series, folders, capsys):
    pytest.importorskip("distributed", reason="for those who have a cluster")
    address = "nonsense://127.0.0.1:1"
    assert command.main([*ARGUMENTS, "--scheduler", address]) == 1
    assert address in capsys.readouterr().err and not (folders.runs / "g").exists()


def test_without_dask_it_is_said(series, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert command.main([*ARGUMENTS, "--scheduler", "tcp://127.0.0.1:1"]) == 1
    assert "pip install distributed" in capsys.readouterr().err
