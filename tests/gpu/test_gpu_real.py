"""What a real GPU is asked on the day that there is one; rehearsed on a pretend one.

python -m pytest tests/gpu -k real -m "long or not long"
"""

import dataclasses
import gc

import numpy as np
import pytest
import torch

from helpers.model import AttnVGG
from helpers.training import loop
from helpers.training.settings import Settings
from tests.gpu.conftest import forbid_waits_within_epochs, on_gpu, pretend
from tests.gpu.small import Small

SETTINGS = Settings(image_size=32, epochs=1, batch_size=13)
MASKED = {"attention": "sigmoid", "mask_weight_pool3": 0.1, "mask_weight_pool4": 0.1}
# taken here, and not within a test: a pretend GPU is none
IS_THERE = torch.cuda.is_available()


@pytest.fixture(params=["pretended", "real"])
def any_gpu(request):
    if request.param == "pretended":
        with pretend("t4"):
            yield
    elif IS_THERE:
        yield
    else:
        pytest.skip("needs a CUDA device")


@pytest.mark.long
@pytest.mark.parametrize("chosen", [{}, {"recipe": "paper", **MASKED}], ids=["one_cycle", "paper"])
def test_an_epoch_waits_for_nothing(chosen, any_gpu, made, monkeypatch):
    forbid_waits_within_epochs(monkeypatch)
    settings = dataclasses.replace(SETTINGS, **chosen)
    fitted = loop.fit(settings, made.split, on_gpu(made), report=str)
    assert np.isfinite(fitted.history.to_numpy()).all()
    assert fitted.timing["peak_memory_bytes"] > 0


def test_a_wait_within_an_epoch_raises(any_gpu, made, monkeypatch):
    forbid_waits_within_epochs(monkeypatch)
    with pytest.raises(RuntimeError, match="synchronizing"):
        loop.fit(
            SETTINGS,
            made.split,
            on_gpu(made),
            report=str,
            network=Small(),
            extra_loss=lambda output, batch: output.logits.sum() * output.logits.sum().item(),
        )


def test_its_answers_are_the_cpus(any_gpu, made):
    torch.manual_seed(0)
    here = AttnVGG().eval()
    there = AttnVGG().to("cuda", memory_format=torch.channels_last).eval()
    there.load_state_dict(here.state_dict())
    config = {"view": 1.0, "image_size": 32, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    expected = loop.predict(here, made.photographs(), made.val, config, torch.float32)
    answers = loop.predict(there, on_gpu(made), made.val, config, torch.float32)
    torch.testing.assert_close(answers, expected, rtol=0.02, atol=0.002)  # TF32


def test_a_training_that_found_no_room_leaves_room(any_gpu, made, monkeypatch):
    """An error that somebody keeps, as a notebook does, holds nothing that lies on the GPU."""
    gc.collect()
    before = torch.cuda.memory_allocated()

    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "focal_loss", full)
    photographs = on_gpu(made)
    monkeypatch.setattr(loop, "new_network", lambda settings: Small(20_000_000))
    with pytest.raises(MemoryError, match="batch_size") as kept:
        loop.fit(SETTINGS, made.split, photographs, report=str)
    gc.collect()
    held = torch.cuda.memory_allocated() - before
    # cuBLAS keeps a workspace of some megabytes; the network alone has 80
    assert held < photographs.pixels.nbytes + photographs.masks.nbytes + 40e6, kept
