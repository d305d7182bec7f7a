"""What several processes need to train one network, each on its share of every batch; torchrun starts them.

PyTorch's DistributedDataParallel averages their gradients. Where one process runs alone, a share is the whole and
everything here leaves things as they are, so that the training loop is one for both.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from helpers import workspace

PATIENCE = timedelta(
    minutes=10
)  # how long a process waits for one that is silent before the job ends with an error


@contextmanager
def started(device: str = "auto") -> Iterator[torch.device]:
    """Join the processes that torchrun started, or none; yields this process's device, on CUDA a GPU of its own.

    Raises ValueError for a device that is not here, or where GPUs are fewer than this machine's processes.
    """
    local, chip = int(os.environ.get("LOCAL_RANK", 0)), workspace.choose_device(device)
    if "WORLD_SIZE" not in os.environ:
        yield chip
        return
    if chip.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                "start torchrun with that --nproc-per-node"
            )
        chip = torch.device("cuda", local)
        torch.cuda.set_device(chip)
    distributed.init_process_group("nccl" if chip.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield chip
    finally:
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def share(items: np.ndarray) -> np.ndarray:
    """This process's share of a batch [B]: neighbours, every item in one share, sizes within 1."""
    number, count = place()
    return np.array_split(items, count)[number]


def weight(own: int, whole: int) -> float:
    """What to multiply the mean over this share's `own` items by, so that averaging processes gives that over `whole`.

    Every process knows both counts, since all draw the same batches: nothing need be sent.
    """
    return place()[1] * own / whole if whole else 0.0


def replicate(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The network, and what to call in its place in training: there, gradients are averaged over the processes.

    On GPUs batch norm takes its statistics over the whole batch; on the CPU, where PyTorch cannot, over each share.
    """
    if place()[1] == 1:
        return network, network
    chip = next(network.parameters()).device
    if chip.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network, DistributedDataParallel(network, [chip] if chip.type == "cuda" else None)


def gather(values: Tensor, places: np.ndarray, count: int) -> Tensor:
    """The shares' values [n], each at its places [n] among `count`, as one tensor [count] on every process's CPU."""
    whole = torch.zeros(count, device=communicator())
    whole[torch.from_numpy(places).to(whole.device)] = values.to(whole.device)
    if place()[1] > 1:
        distributed.all_reduce(whole)
    return whole.cpu()


def same(value: int, what: str) -> None:
    """Raises RuntimeError where the processes do not agree on a number, such as the epoch that they start after."""
    if place()[1] > 1:
        both = torch.tensor([value, -value], device=communicator())
        distributed.all_reduce(both, distributed.ReduceOp.MAX)
        if both[0] != -both[1]:
            raise RuntimeError(
                f"{what}: the processes have {-both[1]} to {both[0]}; runs/ must be one folder for all"
            )


def copy_buffers(network: nn.Module) -> None:
    """Give every process the first one's running statistics, so that all evaluate one network."""
    if place()[1] > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)


def communicator() -> torch.device:
    """Where tensors must lie to be sent."""
    return torch.device("cuda" if place()[1] > 1 and distributed.get_backend() == "nccl" else "cpu")
