"""The pretend GPU itself: it lets a tensor do what CUDA lets it do, and no more."""

import copy

import numpy as np
import pytest
import torch

from tests.gpu.conftest import pretend
from tests.gpu.pretend import DeviceMismatch


def there(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, device="cuda")


@pytest.mark.parametrize(
    "mixed",
    [
        lambda: there(3, 3) + torch.ones(3, 3),
        lambda: torch.cat([there(3), torch.ones(3)]),
        lambda: there(3, 3) @ torch.ones(3, 3),
        lambda: torch.where(torch.ones(3) > 0, there(3), there(3)),
        lambda: torch.ones(3)[torch.tensor([0]).to("cuda")] + there(3),
        lambda: torch.nn.Linear(3, 1).to("cuda")(torch.ones(2, 3)),
        lambda: there(3).index_put((torch.tensor([0, 1]),), torch.ones(2)),
    ],
    ids=["add", "cat", "matmul", "where", "index", "layer", "index_put"],
)
def test_tensors_of_two_devices_may_not_meet(gpu, mixed):
    with pytest.raises(DeviceMismatch, match="cuda:0 and cpu"):
        mixed()


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda: there(3).numpy(),
        lambda: np.asarray(there(3)),
        lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
        lambda: there(3).to("cuda:1"),
    ],
    ids=["numpy", "asarray", "generator", "second GPU"],
)
def test_what_cuda_refuses_is_refused(gpu, forbidden):
    with pytest.raises((TypeError, RuntimeError)):
        forbidden()


@pytest.mark.parametrize(
    "wait, what",
    [
        (lambda: there(3).sum().item(), "item"),
        (lambda: bool(there(3).sum()), "item"),
        (lambda: there(3).cpu(), "D2H copy"),
        (lambda: there(3).tolist(), "tolist"),
        (lambda: torch.ones(3).to("cuda"), "H2D copy"),
        (lambda: torch.tensor([1.0], device="cuda"), "H2D copy"),
        (lambda: there(3)[there(3) > 0], "index by a mask"),
        (lambda: there(3)[np.array([0, 1])], "index from the CPU"),
        (lambda: there(3)[torch.tensor([0, 1])], "index from the CPU"),
        (lambda: there(3).nonzero(), "nonzero"),
        (lambda: torch.cuda.synchronize(), "synchronize"),
    ],
)
def test_what_makes_the_host_wait_is_noted_and_can_be_forbidden(gpu, wait, what):
    wait()
    assert any(what in kind for _, kind in gpu.waits)
    with gpu.without_waits(), pytest.raises(RuntimeError, match="synchronizing"):
        wait()


def test_what_a_tensor_on_a_gpu_may_do(gpu):
    tensor = torch.arange(3.0, device="cuda")
    assert tensor.is_cuda and not tensor.is_cpu and tensor.get_device() == 0
    assert (tensor + torch.tensor(1.0)).device == torch.device("cuda", 0)  # a number may be mixed
    assert tensor.cpu().numpy().tolist() == [0, 1, 2]
    assert copy.deepcopy(tensor).is_cuda and torch.zeros_like(tensor).is_cuda
    assert not torch.ones(3).is_cuda and not torch.zeros_like(tensor, device="cpu").is_cuda
    with gpu.without_waits():
        torch.ones(3).to("cuda", non_blocking=True)
        tensor[1:].mul_(2).sum()


def test_gradients_come_to_where_the_weights_are(gpu):
    layer = torch.nn.Linear(3, 1).to("cuda")
    layer(torch.ones(2, 3).to("cuda")).sum().backward()
    assert layer.weight.grad.is_cuda and layer.weight.grad.cpu().tolist() == [[2.0, 2.0, 2.0]]


def test_memory_is_counted_and_bounded():
    with pretend("t4", memory=1e6, bounded=True) as gpu:
        kept = there(100, 1000)
        assert gpu.held() == 400_000 == torch.cuda.memory_allocated()
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            there(200, 1000)
        more = there(100, 1000)
        del more
        assert gpu.held() == kept.nbytes and gpu.peak == 800_000
        torch.cuda.reset_peak_memory_stats()
        assert torch.cuda.max_memory_allocated() == 400_000


def test_outside_the_block_all_is_as_it_was():
    before = torch.cuda.is_available()
    with pretend("t4"):
        assert torch.cuda.is_available()
    assert torch.cuda.is_available() == before and not torch.ones(1).is_cuda
