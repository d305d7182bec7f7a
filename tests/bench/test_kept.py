"""bench/kept.py: what is kept of trained networks is not made again, nor mixed with others."""

import json

import pytest

from tests.bench.conftest import record  # noqa: F401 - it makes bench/ importable

import kept  # isort: skip

WANTED = [("softmax", 1), ("softmax", 0), ("no attention", 0)]


def measure(name: str, seed: int) -> dict:
    return {"network": name, "seed": seed}


def of_epochs(epochs: int):
    return lambda name, seed: {"epochs": epochs, "seed": seed}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "kept"
    runs = kept.complete(place, WANTED, of_epochs(1), measure)
    assert [(run["network"], run["seed"]) for run in runs] == WANTED
    return place


def never(*which) -> dict:
    raise AssertionError(f"{which} was trained again")


def test_what_is_there_is_not_made_again_and_what_is_lost_is(folder):
    kept.complete(folder, WANTED, of_epochs(1), never)
    kept.file_of(folder, "softmax", 1).unlink()
    made = []

    def measured(name: str, seed: int) -> dict:
        made.append((name, seed))
        return measure(name, seed)

    kept.complete(folder, WANTED, of_epochs(1), measured)
    assert made == [("softmax", 1)]


def test_all_that_lies_there_comes_in_the_order_of_the_names(folder):
    runs = kept.read_all(folder, of_epochs(1), ["no attention", "softmax"])
    found = [(run["network"], run["seed"]) for run in runs]
    assert found == [("no attention", 0), ("softmax", 0), ("softmax", 1)]


def test_what_is_wanted_twice_is_made_once(tmp_path):
    runs = kept.complete(tmp_path, [WANTED[0], WANTED[0]], of_epochs(1), measure)
    assert len(runs) == 1


def test_what_earlier_calls_have_left_is_read_too(folder):
    more = [("softmax", 2)]
    names = ["no attention", "softmax"]
    runs = kept.complete_and_all(folder, more, of_epochs(1), measure, names)
    assert [run["seed"] for run in runs] == [0, 0, 1, 2]


@pytest.mark.parametrize("content", [{"format": 1}, {"format": 1, "network": "gone", "seed": 0}])
def test_a_file_of_no_such_network_is_named(folder, content):
    (folder / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"metrics\.json is of none of this program's networks"):
        kept.complete_and_all(folder, WANTED, of_epochs(1), never, ["no attention", "softmax"])


def test_files_of_other_makings_are_refused_with_what_differs_before_any_is_made(folder):
    with pytest.raises(SystemExit, match=r"no-attention-0\.json .*epochs 1 and not 2"):
        kept.read_all(folder, of_epochs(2), ["no attention", "softmax"])
    kept.file_of(folder, "softmax", 1).unlink()
    with pytest.raises(SystemExit, match=r"softmax-0\.json .*epochs 1 and not 2"):
        kept.complete(folder, WANTED, of_epochs(2), never)
    # and one that says nothing of what shaped it
    content = {"format": 1, "network": "softmax", "seed": 0}
    kept.file_of(folder, "softmax", 0).write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"softmax-0\.json .*epochs None"):
        kept.complete(folder, WANTED, of_epochs(2), never)
