"""Training on a pretend GPU: what a real one refuses, waits for, or has no room for."""

import contextlib
import dataclasses
import gc
import warnings

import numpy as np
import pytest
import torch

from helpers import workspace
from helpers.training import batches, checkpoint, loop, processes
from helpers.training.augment import IMAGENET_MEAN, IMAGENET_STD
from helpers.training.settings import Settings, make_optimiser
from tests.gpu.conftest import forbid_waits_within_epochs, on_gpu, pretend
from tests.gpu.small import Small

SMALL = Settings(image_size=32, epochs=1, batch_size=13)
MASKED = {"attention": "sigmoid", "mask_weight_pool3": 0.1, "mask_weight_pool4": 0.1}
CONFIG = {"view": 1.0, "image_size": 32, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def quiet(line: str) -> None:
    pass


# a machine, settings, and the precision that it chooses
WAYS = [
    ("t4", {"recipe": "paper", **MASKED}, "float16"),
    ("h100", {"attention": "weighted", "bypass": False, "mask_weight_pool4": 0.1}, "bfloat16"),
]
MORE = [
    ("t4", {}, "float16"),
    ("full", {}, "float16"),
    ("h100", {"recipe": "tutorial", "attention": "none", "dropout": 0.3}, "bfloat16"),
    ("t4", {"recipe": "tutorial", "attention": "none", "dropout": 0.3}, "float16"),
    ("full", {"recipe": "paper", **MASKED}, "float16"),
    ("full", {"recipe": "tutorial", "precision": "fp32"}, "float32"),
    ("h100", {"recipe": "paper", **MASKED}, "bfloat16"),
    ("h100", {"recipe": "paper", **MASKED, "mask_target": "otsu"}, "bfloat16"),
    ("h100", {"precision": "fp32"}, "float32"),
]


@pytest.mark.parametrize(
    "machine, chosen, precision",
    [*WAYS, *(pytest.param(*way, marks=pytest.mark.long) for way in MORE)],
)
def test_training_runs_and_waits_for_nothing_within_an_epoch(
    machine, chosen, precision, made, monkeypatch
):
    with pretend(machine) as gpu, warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        photographs = on_gpu(made)
        assert photographs.resident == (machine != "full")
        forbid_waits_within_epochs(monkeypatch)
        settings = dataclasses.replace(SMALL, **chosen)
        fitted = loop.fit(settings, made.split, photographs, report=quiet)
        loop.predict_held_out(fitted, made.split, photographs)
    assert (fitted.timing["device"], fitted.timing["precision"]) == ("cuda", precision)
    assert 0 < fitted.timing["peak_memory_bytes"] <= gpu.peak
    assert np.isfinite(fitted.history.to_numpy()).all()
    if machine == "full":
        assert ways_to_read(gpu) == {("pinned", "non_blocking")}


def ways_to_read(gpu) -> set[tuple[str, str]]:
    """From which memory photographs came, and whether the host waited."""
    return {
        (kind, waits) for line, _, kind, waits, _ in gpu.transfers if line.startswith("batches.py")
    }


def test_photographs_without_room_come_from_page_locked_memory_and_are_not_waited_for(
    made, monkeypatch
):
    with pretend("full") as gpu:
        forbid_waits_within_epochs(monkeypatch)
        photographs = on_gpu(made)
        fitted = loop.fit(SMALL, made.split, photographs, report=quiet, network=Small())
        loop.predict_held_out(fitted, made.split, photographs)
    assert ways_to_read(gpu) == {("pinned", "non_blocking")}


@pytest.mark.long
def test_in_float32_a_gpu_learns_what_the_cpu_learns(made, gpu):
    settings = dataclasses.replace(SMALL, precision="fp32")
    there = loop.fit(settings, made.split, on_gpu(made), report=quiet)
    here = loop.fit(settings, made.split, made.photographs(), report=quiet)
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose(there.history[name], here.history[name], rtol=1e-5)
    assert all(value.is_cuda for value in there.network.state_dict().values())
    assert not any(value.is_cuda for value in here.network.state_dict().values())


def cut_in_epoch(number: int, monkeypatch) -> None:
    """Ctrl-C in the middle of an epoch."""
    train_epoch = loop.train_epoch

    def cut(training, epoch):
        if epoch == number:
            with monkeypatch.context() as patch:
                patch.setattr(loop, "focal_loss", stop)
                train_epoch(training, epoch)
        return train_epoch(training, epoch)

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train_epoch", cut)


@pytest.mark.parametrize("recipe", ["paper", "one_cycle", "tutorial"])
def test_a_cut_training_goes_on_with_the_scaler_and_the_optimiser_it_had(
    recipe, made, gpu, tmp_path, monkeypatch
):
    settings = dataclasses.replace(SMALL, epochs=2, recipe=recipe)
    progress = tmp_path / "progress.pt"

    def train(report=quiet, progress=None):
        torch.manual_seed(0)
        photographs = on_gpu(made)
        return loop.fit(
            settings, made.split, photographs, report=report, progress=progress, network=Small()
        )

    whole = train()
    monkeypatch.setattr(loop, "PAUSE", 0.0)  # each epoch is kept
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_in_epoch(2, patch)
        train(progress=progress)
    lines = []
    again = train(lines.append, progress)
    assert any("goes on after epoch 1" in line for line in lines)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value.cpu(), again.network.state_dict()[name].cpu()), name


def test_short_epochs_on_a_gpu_are_not_all_kept_but_the_last_is(made, gpu, tmp_path, monkeypatch):
    settings = dataclasses.replace(SMALL, epochs=3)
    kept = []
    monkeypatch.setattr(loop, "PAUSE", float("inf"))
    monkeypatch.setattr(
        checkpoint, "save_progress", lambda path, facts, state: kept.append(len(state["history"]))
    )
    options = {"report": quiet, "progress": tmp_path / "progress.pt", "network": Small()}
    loop.fit(settings, made.split, on_gpu(made), **options)
    assert kept == [1, 3]


# memory


IDLE = 5_000_000  # weights: 20 MB


def fill(made, monkeypatch, bias: float = 0.0, **options) -> tuple[BaseException, int]:
    """A training that ends early: its error, and the bytes of it that lie on the GPU then.

    The error is kept, as a notebook keeps the last one. Each network, its gradients and its
    optimiser's state take 80 MB.
    """

    def new_network(settings):
        network = Small(IDLE)
        torch.nn.init.constant_(network.classifier.bias, bias)
        return network

    monkeypatch.setattr(loop, "new_network", new_network)
    with pretend("t4", bounded=True, **options) as gpu:
        photographs = on_gpu(made)
        before = gpu.held()
        with pytest.raises((MemoryError, FloatingPointError, KeyboardInterrupt)) as kept:
            loop.fit(SMALL, made.split, photographs, report=quiet)
        gc.collect()
        return kept.value, gpu.held() - before


def test_a_batch_that_does_not_fit_says_what_to_set_and_leaves_nothing_there(made, monkeypatch):
    error, held = fill(made, monkeypatch, memory=60e6)
    assert "batch_size to 6" in str(error) and held < 1e6


def test_a_training_that_is_stopped_leaves_nothing_there(made, monkeypatch):
    cut_in_epoch(1, monkeypatch)
    error, held = fill(made, monkeypatch)
    assert isinstance(error, KeyboardInterrupt) and held < 1e6


def test_a_loss_that_is_lost_leaves_nothing_there(made, monkeypatch):
    error, held = fill(made, monkeypatch, bias=float("nan"))
    assert isinstance(error, FloatingPointError) and held < 1e6


def test_another_error_keeps_what_a_debugger_asks_for(made, monkeypatch):
    def wrong(*arguments, **options):
        raise TypeError("a slip in a loss of one's own")

    monkeypatch.setattr(loop, "focal_loss", wrong)
    with pytest.raises(TypeError) as kept:
        loop.fit(SMALL, made.split, made.photographs(), report=quiet, network=Small())
    frames = {entry.name: entry.frame.f_locals for entry in kept.traceback}
    assert "batch" in frames["train_epoch"]


def test_what_answers_takes_no_larger_batches_than_the_training_had_room_for(made, gpu):
    settings = dataclasses.replace(SMALL, batch_size=4)
    sizes = []
    network = Small()
    network.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    photographs = on_gpu(made)
    fitted = loop.fit(settings, made.split, photographs, report=quiet, network=network)
    loop.predict_held_out(fitted, made.split, photographs)
    assert max(sizes) == 8


def test_the_peak_is_of_this_training_alone(made, gpu):
    large = torch.zeros(100_000_000, device="cuda")
    del large
    fitted = loop.fit(SMALL, made.split, on_gpu(made), report=quiet, network=Small())
    assert 0 < fitted.timing["peak_memory_bytes"] < 400_000_000


def test_photographs_come_to_a_gpu_piece_by_piece(made, gpu, monkeypatch):
    monkeypatch.setattr(batches, "PIECE", 7)
    photographs = on_gpu(made)
    assert photographs.resident and photographs.pixels.is_cuda
    for name in ("pixels", "masks"):
        stored = np.load(made.cache["file" if name == "pixels" else "masks_file"])
        assert np.array_equal(getattr(photographs, name).cpu().numpy(), stored)
        most = max(size for _, way, *_, size in gpu.transfers if way == "H2D")
    assert most == 7 * stored[0].nbytes * 3


# precision and the optimiser


@pytest.mark.parametrize("recipe", ["paper", "one_cycle", "tutorial"])
def test_a_first_step_that_overflows_leaves_the_optimiser_as_new(recipe, gpu):
    """GradScaler starts high, so that fp16's first steps are left out; nothing may come of them."""
    settings = Settings(recipe=recipe, learning_rate=0.1)
    found = []
    for overflows in (True, False):
        weight = torch.nn.Linear(4, 1, bias=False).to("cuda")
        torch.nn.init.ones_(weight.weight)
        optimiser = make_optimiser(weight, settings)
        scaler = torch.amp.GradScaler("cuda")
        for factor in (float("inf"), 1.0, 1.0)[not overflows :]:
            optimiser.zero_grad()
            scaler.scale((weight.weight * factor).sum()).backward()
            scaler.step(optimiser)
            scaler.update()
        found.append(weight.weight.detach().cpu())
    torch.testing.assert_close(*found)


def test_bf16_is_refused_where_a_gpu_only_emulates_it(gpu):
    with pytest.raises(ValueError, match=r"bf16.*7\.5.*8\.0.*fp16"):
        workspace.choose_precision(torch.device("cuda"), "bf16")
    assert workspace.choose_precision(torch.device("cuda")) is torch.float16


# answers


def test_read_only_rows_raise_no_warning(made, gpu):
    rows = made.val.copy()
    rows.flags.writeable = False  # as pandas gives an index
    torch.set_warn_always(True)  # not only the first time in a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            on_gpu(made).take(rows)
    finally:
        torch.set_warn_always(False)


def test_answers_are_read_ahead_where_photographs_do_not_lie_there(made):
    with pretend("full") as gpu:
        photographs = on_gpu(made)
        loop.predict(Small().to("cuda"), photographs, made.train, CONFIG, torch.float32)
    assert ways_to_read(gpu) == {("pinned", "non_blocking")}


# compiled, and several processes


def test_compiled_training_keeps_to_a_graph_for_each_size_of_batch(made, monkeypatch):
    """13 and 12 photographs: two static graphs, and none for any size, which would be slower."""
    symbolic = []

    def backend(graph, inputs):
        symbolic.append(any(not isinstance(value, torch.Tensor) for value in inputs))
        return graph.forward

    compile_it = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(
        torch, "compile", lambda network, **options: compile_it(network, backend=backend, **options)
    )
    settings = dataclasses.replace(SMALL, precision="fp32", compile_model=True)
    sizes = {len(part) for part in np.array_split(made.train, -(-len(made.train) // 13))}
    assert len(sizes) == 2, "the set has batches of two sizes"
    loop.fit(settings, made.split, made.photographs(), report=quiet, network=Small())
    assert symbolic == [False, False]


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_that_fails_does_not_wait_for_the_others(fails, monkeypatch):
    """To take nccl's group down is a call for all, which hangs where one has died."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    begun = []
    ended = []
    with pretend("t4", devices=2), monkeypatch.context() as patch:
        group = torch.distributed
        patch.setattr(group, "init_process_group", lambda *a, **o: begun.append((*a, o)))
        patch.setattr(group, "destroy_process_group", lambda: ended.append(1))
        expected = pytest.raises(MemoryError) if fails else contextlib.nullcontext()
        with expected, processes.started("auto") as device:
            assert device == torch.device("cuda", 1)
            if fails:
                raise MemoryError("no room")
    assert bool(ended) is not fails
    [(backend, options)] = begun
    assert backend == "nccl" and options["device_id"] == torch.device("cuda", 1)
