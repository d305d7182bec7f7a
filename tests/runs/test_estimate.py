"""How long notebooks take here: what is scaled, what is not known, and a bar that time fills."""

import json
import threading

import pytest
import torch

from helpers import workspace
from helpers.runs import estimate, parameters
from helpers.training.settings import Parameters

CPU = {"cores": 2, "processor": "Toy 1", "device": "cpu"}
# 80 of the seconds of 04 had both cores at work, none of 01
FIGURES = {
    "01_download": {"seconds": 40.0, "processor_seconds": 38.0},
    "04_train": {"seconds": 100.0, "processor_seconds": 180.0},
}
ALL = list(FIGURES)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Writes a results file of a machine; here a step takes three seconds, and `timed` counts."""
    timed = []

    def step_seconds(precision: torch.dtype) -> float:
        timed.append(precision)
        return 3.0

    def write(**machine: object) -> list[torch.dtype]:
        content = {"figures": FIGURES, "machine": CPU | machine}
        (tmp_path / "times.json").write_text(json.dumps(content))
        return timed

    monkeypatch.setattr(estimate, "TIMES", tmp_path / "times.json")
    monkeypatch.setattr(estimate, "step_seconds", step_seconds)
    monkeypatch.setattr(workspace, "choose_device", lambda device: torch.device("cpu"))
    return write


def test_what_all_cores_computed_is_scaled_and_nothing_else(measured):
    measured(step_seconds=1.5)
    expected = estimate.how_long(ALL, Parameters())
    assert expected.seconds == {"01_download": 40.0, "04_train": 20.0 + 2 * 80.0}
    assert "about 4 minutes" in expected.words and "2 cores of Toy 1" in expected.words
    assert "about 40 seconds" in estimate.how_long(ALL[:1], Parameters()).words


@pytest.mark.parametrize(
    "changed, seconds",
    [
        # two of 64 pixels and two of 96, for five and three
        ({"epochs": 4}, 20.0 + 80.0 * (2 * 64**2 + 2 * 96**2) / (5 * 64**2 + 3 * 96**2)),
        ({"image_size": 192}, 20.0 + 80.0 * 4),
        ({"seed": 5, "run": "mine", "learning_rate": 0.01}, 100.0),
    ],
)
def test_parameters_whose_cost_is_known_are_counted(changed, seconds, measured):
    measured(step_seconds=3.0)
    expected = estimate.how_long(ALL, Parameters(**changed))
    assert expected.seconds == {"01_download": 40.0, "04_train": pytest.approx(seconds)}


def test_a_slow_machine_is_told_of_the_shorter_run(measured, monkeypatch):
    measured(step_seconds=3.0)
    assert estimate.shorter(ALL, Parameters()) == "", "140 s are no wait"
    monkeypatch.setattr(estimate, "PATIENCE", 100)
    advice = estimate.shorter(ALL, Parameters())
    assert "make tutorial PARAMS=notebooks/params/short.yaml" in advice
    assert "64 pixels in place of 96 and for 6 epochs in place of 8" in advice
    # 40 s of 01, 20 s of 04 and what its six epochs of 64 pixels are of 80 s
    seconds = 60 + 80 * 6 * 64**2 / (5 * 64**2 + 3 * 96**2)
    assert f"it takes {estimate.in_words(seconds)}" in advice
    for chosen in ({"epochs": 12}, {"image_size": 192}, {"dataset": "isic"}):
        assert estimate.shorter(ALL, Parameters(**chosen)) == ""


def test_parameters_whose_cost_is_not_known_are_named(measured):
    measured(step_seconds=3.0)
    expected = estimate.how_long(ALL, Parameters(dataset="isic", batch_size=8, epochs=4))
    assert expected.seconds == {}
    assert "dataset" in expected.words and "batch_size" in expected.words
    assert "epochs" not in expected.words


@pytest.mark.parametrize("machine", [{}, {"step_seconds": 1.0, "device": "Toy GPU"}])
def test_of_a_machine_that_cannot_be_compared_its_own_time_is_told(machine, measured):
    timed = measured(**machine)
    expected = estimate.how_long(ALL, Parameters())
    assert expected.seconds == {} and timed == []
    assert "about 2 minutes on 2 cores of Toy 1" in expected.words and "not known" in expected.words


def test_on_a_gpu_nothing_is_timed(measured, monkeypatch):
    timed = measured(step_seconds=1.0)
    monkeypatch.setattr(workspace, "choose_device", lambda device: torch.device("cuda"))
    expected = estimate.how_long(ALL, Parameters())
    assert expected.seconds == {} and timed == [] and "cuda" in expected.words


def test_the_step_has_the_run_s_precision(measured):
    timed = measured(step_seconds=1.0)
    estimate.how_long(ALL, Parameters(precision="bf16"))
    estimate.how_long(ALL, Parameters(precision="fp32"))
    assert timed == [torch.bfloat16, torch.float32]


def test_what_was_not_measured_is_not_estimated(measured, monkeypatch):
    nothing = estimate.Estimate({}, "")
    assert estimate.how_long(ALL, Parameters()) == nothing, "there is no file"
    measured(step_seconds=1.0)
    assert estimate.how_long([*ALL, "09_more"], Parameters()) == nothing
    monkeypatch.undo()
    assert estimate.how_long(["01_download"], Parameters(device="cuda:99")) == nothing


def test_the_results_of_this_repository_are_read(measured, monkeypatch):
    monkeypatch.setattr(
        estimate, "TIMES", workspace.PROJECT / "data" / "results" / "running_times.json"
    )
    stems = [path.stem for path in parameters.NOTEBOOKS]
    assert "minutes" in estimate.how_long(stems, Parameters()).words
    assert {*estimate.TRAINS, *estimate.SEES} <= {*stems}
    known = vars(Parameters())
    assert {*estimate.COUNTED, *estimate.SAME_TIME} <= {*known}


@pytest.mark.parametrize(
    "seconds, processor, cores, computing",
    [
        (10.0, 19.0, 2, 9.0),
        (10.0, 8.0, 2, 0.0),
        (10.0, 40.0, 4, 10.0),
        (10.0, 50.0, 4, 10.0),  # other clocks
        (10.0, 9.0, 1, 10.0),  # cannot be told from what one core does
        (10.0, 0.0, 2, 10.0),  # not known
    ],
)
def test_the_seconds_in_which_all_cores_computed(seconds, processor, cores, computing):
    figures = {"seconds": seconds, "processor_seconds": processor}
    assert estimate.computing_seconds(figures, cores) == computing


def test_timing_a_step_leaves_what_is_drawn_afterwards(monkeypatch):
    monkeypatch.setattr(estimate, "CALIBRATION", 0.0)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert estimate.step_seconds.__wrapped__(torch.float32) > 0
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("seconds, hidden", [(100.0, True), (0.0, False)])
def test_there_is_no_clock_where_nobody_watches_or_nothing_is_known(seconds, hidden, capsys):
    with estimate.clock("the parts", seconds, hidden=hidden):
        pass
    assert capsys.readouterr().err == ""


def test_the_clock_ends_with_what_it_counts(capsys):
    with pytest.raises(ZeroDivisionError), estimate.clock("the parts", 100.0, hidden=False):
        1 / 0  # noqa: B018
    assert "the parts" in capsys.readouterr().err
    assert not [thread for thread in threading.enumerate() if "tick" in thread.name]
