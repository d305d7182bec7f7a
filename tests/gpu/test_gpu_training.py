"""Training on a pretend GPU: what a real one refuses, waits for, or has no room for."""

import dataclasses
import gc
import warnings

import numpy as np
import pytest
import torch

from helpers import workspace
from helpers.model import AttnVGG
from helpers.training import batches, checkpoint, loop, processes
from helpers.training.augment import IMAGENET_MEAN, IMAGENET_STD
from helpers.training.settings import Settings, make_optimiser
from tests.gpu.conftest import forbid_waits_within_epochs, on_gpu, pretend

SMALL = Settings(image_size=32, epochs=1, batch_size=13)
MASKED = {"attention": "sigmoid", "mask_weight_pool3": 0.1, "mask_weight_pool4": 0.1}
CONFIG = {"view": 1.0, "image_size": 32, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def quiet(line: str) -> None:
    pass


WAYS = [
    ("t4", {"recipe": "paper", **MASKED}, "float16"),
    ("full", {}, "float16"),
    ("h100", {"recipe": "tutorial", "attention": "none", "dropout": 0.3}, "bfloat16"),
    ("h100", {"attention": "weighted", "bypass": False, "mask_weight_pool4": 0.1}, "bfloat16"),
]
MORE = [
    ("t4", {}, "float16"),
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
    assert fitted.timing["peak_memory_bytes"] == gpu.peak > 0
    assert np.isfinite(fitted.history.to_numpy()).all()
    if machine == "full":  # what is streamed comes from page-locked memory, and nobody waits for it
        ways = {(kind, waits) for where, way, kind, waits, _ in gpu.transfers if is_read(where)}
        assert ways == {("pinned", "non_blocking")}


def is_read(line: str) -> bool:
    return line.startswith("batches.py")


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


@pytest.mark.parametrize("recipe", ["paper", pytest.param("one_cycle", marks=pytest.mark.long)])
def test_a_cut_training_goes_on_with_the_scaler_and_the_optimiser_it_had(
    recipe, made, gpu, tmp_path, monkeypatch
):
    settings = dataclasses.replace(SMALL, epochs=2, recipe=recipe)
    whole = loop.fit(settings, made.split, on_gpu(made), report=quiet)
    progress = tmp_path / "progress.pt"
    monkeypatch.setattr(loop, "PAUSE", 0.0)  # each epoch is kept
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_in_epoch(2, patch)
        loop.fit(settings, made.split, on_gpu(made), report=quiet, progress=progress)
    lines = []
    again = loop.fit(settings, made.split, on_gpu(made), report=lines.append, progress=progress)
    assert any("goes on after epoch 1" in line for line in lines)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value.cpu(), again.network.state_dict()[name].cpu()), name


def test_short_epochs_on_a_gpu_are_not_all_kept_but_the_last_is(made, gpu, tmp_path, monkeypatch):
    settings = dataclasses.replace(SMALL, epochs=3, attention="none")
    kept = []
    monkeypatch.setattr(loop, "PAUSE", float("inf"))
    monkeypatch.setattr(
        checkpoint, "save_progress", lambda path, facts, state: kept.append(len(state["history"]))
    )
    progress = tmp_path / "progress.pt"
    loop.fit(settings, made.split, on_gpu(made), report=quiet, progress=progress)
    assert kept == [1, 3]


# memory


def fill(made, monkeypatch, **options) -> tuple:
    """A training that ends for want of memory, or by Ctrl-C: its error, and what is held then."""
    with pretend("t4", bounded=True, **options) as gpu:
        settings = dataclasses.replace(SMALL, batch_size=32, precision="fp32")
        photographs = on_gpu(made)
        with pytest.raises((MemoryError, KeyboardInterrupt)) as kept:  # as a notebook keeps it
            loop.fit(settings, made.split, photographs, report=quiet)
        gc.collect()
        return kept.value, gpu.held(), photographs.pixels.nbytes + photographs.masks.nbytes


def test_a_batch_that_does_not_fit_says_what_to_set_and_leaves_nothing_there(made, monkeypatch):
    error, held, photographs = fill(made, monkeypatch, memory=100e6)
    assert "batch_size to 16" in str(error)
    assert held <= photographs + 1000, f"the error holds {held / 1e6:.0f} MB"


def test_a_training_that_is_stopped_leaves_nothing_there(made, monkeypatch):
    cut_in_epoch(1, monkeypatch)
    error, held, photographs = fill(made, monkeypatch)
    assert isinstance(error, KeyboardInterrupt)
    assert held <= photographs + 1000, f"the error holds {held / 1e6:.0f} MB"


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_whatever_library_finds_no_room_the_sentence_is_the_same(words, made, monkeypatch):
    def full(*arguments, **options):
        raise RuntimeError(words)

    monkeypatch.setattr(AttnVGG, "forward", full)
    with pytest.raises(MemoryError, match="batch_size to 6"):
        loop.fit(SMALL, made.split, made.photographs(), report=quiet)


def test_what_answers_takes_no_larger_batches_than_the_training_had_room_for(made, gpu):
    settings = dataclasses.replace(SMALL, batch_size=4)
    sizes = []
    network = AttnVGG(attention="none")
    network.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    photographs = on_gpu(made)
    fitted = loop.fit(settings, made.split, photographs, report=quiet, network=network)
    loop.predict_held_out(fitted, made.split, photographs)
    assert max(sizes) == 8


def test_the_peak_is_of_this_training_alone(made, gpu):
    large = torch.zeros(100_000_000, device="cuda")
    del large
    fitted = loop.fit(SMALL, made.split, on_gpu(made), report=quiet)
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


def test_predictions_are_the_cpus(made, gpu):
    torch.manual_seed(0)
    here = AttnVGG().eval()
    there = AttnVGG().to("cuda", memory_format=torch.channels_last).eval()
    there.load_state_dict(here.state_dict())
    expected = loop.predict(here, made.photographs(), made.val, CONFIG, torch.float32)
    answers = loop.predict(there, on_gpu(made), made.val, CONFIG, torch.float32)
    torch.testing.assert_close(answers, expected, rtol=1e-4, atol=1e-5)
    assert not answers.is_cuda


def test_read_only_rows_raise_no_warning(made, gpu):
    rows = made.val.copy()
    rows.flags.writeable = False  # as pandas gives an index
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        on_gpu(made).take(rows)


def test_answers_are_read_ahead_where_photographs_do_not_lie_there(made):
    with pretend("full") as gpu:
        photographs = on_gpu(made)
        loop.predict(AttnVGG().to("cuda"), photographs, made.train, CONFIG, torch.float32)
    kinds = {kind for where, way, kind, *_ in gpu.transfers if is_read(where)}
    assert kinds == {"pinned"}


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
    settings = dataclasses.replace(SMALL, precision="fp32", compile_model=True, attention="none")
    sizes = {len(part) for part in np.array_split(made.train, -(-len(made.train) // 13))}
    assert len(sizes) == 2, "the set has batches of two sizes"
    loop.fit(settings, made.split, made.photographs(), report=quiet)
    assert symbolic == [False, False]


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_that_fails_does_not_wait_for_the_others(fails, monkeypatch):
    """To take nccl's group down is a call for all, which hangs where one has died."""
    called = []
    started = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    group = torch.distributed
    monkeypatch.setattr(group, "init_process_group", lambda *a, **o: started.update(o, name=a[0]))
    monkeypatch.setattr(group, "destroy_process_group", lambda: called.append(1))
    error = MemoryError("no room")
    with pretend("t4", devices=2):
        if fails:
            with pytest.raises(MemoryError), processes.started("auto"):
                raise error
        else:
            with processes.started("auto") as device:
                assert device == torch.device("cuda", 1)
    assert bool(called) is not fails
    assert started["name"] == "nccl" and started["device_id"] == torch.device("cuda", 1)
