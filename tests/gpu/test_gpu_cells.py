"""Single cells of the notebooks, where a GPU once had its way with them."""

from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import workspace
from helpers.training import augment, loop
from helpers.training.loss import focal_loss
from helpers.training.settings import RECIPES, Settings, make_optimiser, make_schedule
from tests.gpu.conftest import on_gpu, pretend
from tests.gpu.small import Small

NOTEBOOKS = workspace.PROJECT / "notebooks"
CONFIG = {
    "view": 1.0,
    "image_size": 32,
    "mean": augment.IMAGENET_MEAN,
    "std": augment.IMAGENET_STD,
}


def run_cell(name: str, text: str, names: dict) -> dict:
    """Run the cell that holds this text; `names` and what it defines."""
    cells = nbformat.read(NOTEBOOKS / name, as_version=4).cells
    [cell] = [c for c in cells if c.cell_type == "code" and text in c.source]
    exec(compile(cell.source, f"<cell {name}>", "exec"), names)  # noqa: S102 - a notebook of ours
    return names


@pytest.mark.parametrize("folder", ["deeper", "solutions"])
def test_make_it_yours_scales_the_small_losses_of_fp16(folder, made, gpu):
    """A ten-millionth of a loss has gradients that fp16 rounds to 0 unless they are scaled."""
    names = {
        "np": np,
        "torch": torch,
        "nn": torch.nn,
        "Settings": Settings,
        "augment": augment,
        "workspace": workspace,
        "predict": loop.predict,
        "make_optimiser": make_optimiser,
        "make_schedule": make_schedule,
        "RECIPES": RECIPES,
        "chip": torch.device("cuda"),
        "config": CONFIG,
        "photographs": on_gpu(made),
        "truth": made.used["target"].to_numpy(),
        "learn": made.train,
        "val": made.val,
        "arithmetic": torch.float16,
    }
    epochs_of = run_cell(f"{folder}/make_it_yours.ipynb", "def epochs_of(", names)["epochs_of"]
    torch.manual_seed(0)
    network = Small().to("cuda")
    before = network.classifier.weight.detach().cpu().clone()
    settings = Settings(image_size=32, epochs=1, batch_size=13, recipe="tutorial")
    gpu.waits.clear()
    answers = list(epochs_of(network, settings, lambda z, y: 1e-7 * focal_loss(z, y)))
    assert len(answers) == 1 and len(answers[0]) == len(made.val)
    moved = (network.classifier.weight.detach().cpu() - before).abs()
    assert (moved > 0).all(), "Adam takes a step however small a gradient is, and none if it is 0"
    assert not any("index from the CPU" in what for _, what in gpu.waits)


@pytest.mark.parametrize(
    "name, text",
    [
        ("deeper/where_the_time_goes.ipynb", "size = max(batch_size"),
        ("solutions/where_the_time_goes.ipynb", "else max(batch_size, 128)"),
    ],
)
@pytest.mark.parametrize("side, expected", [(224, 64), (96, 128)])
def test_where_the_time_goes_takes_batches_that_fit(name, text, side, expected):
    """A step in fp32 keeps 130 MB of a photograph of 224 pixels: 128 do not fit a T4 of 16 GB."""
    used = pd.DataFrame({"split": "train", "target": [0, 1] * 4})
    names = {
        "np": np,
        "torch": torch,
        "workspace": SimpleNamespace(read_json=lambda *_: {}),
        "batches": SimpleNamespace(open_prepared=lambda *_: (None, None)),
        "augment": augment,
        "used_rows": lambda split: used,
        "folder": NOTEBOOKS,
        "batch_size": 16,
        "image_size": side,
        "on_cpu": False,
        "seed": 0,
        "chip": torch.device("cuda"),
        "melanoma": np.array([1, 3]),
        "benign": np.array([0, 2]),
        "used": used,
    }
    with pretend("t4"):
        assert run_cell(name, text, names)["size"] == expected


def test_where_the_time_goes_counts_a_kernel_once():
    """On CUDA the profiler lists what an operation spent there, and its kernel with the same."""
    kinds = torch.autograd.DeviceType
    listed = [
        SimpleNamespace(key=key, device_type=kind, self_device_time_total=time, count=1)
        for key, kind, time in [
            ("aten::cudnn_convolution", kinds.CPU, 30.0),
            ("xmma_fprop_implicit_gemm", kinds.CUDA, 30.0),
            ("aten::relu", kinds.CPU, 10.0),
            ("vectorized_elementwise_kernel", kinds.CUDA, 10.0),
        ]
    ]

    class Profile:
        __enter__ = __exit__ = lambda self, *_: self
        key_averages = staticmethod(lambda: listed)

    names = {
        "torch": SimpleNamespace(
            profiler=SimpleNamespace(profile=Profile), autograd=torch.autograd
        ),
        "pd": pd,
        "chip": torch.device("cuda"),
        "rungs": {"channels last": None},
        "build": lambda rung: None,
        "one_pass": lambda *_: None,
    }
    spent = run_cell("solutions/where_the_time_goes.ipynb", "key_averages()", names)["spent"]
    assert spent.to_dict() == {"aten::cudnn_convolution": 30.0, "aten::relu": 10.0}
