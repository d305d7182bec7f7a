"""What several processes need to train one network, each on its share of every batch.

torchrun starts them, and PyTorch's DistributedDataParallel adds up their gradients. Where one
process trains alone, a share is the whole batch and everything here leaves things as they are: the
training loop is one for both.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from helpers import workspace

# how long a process waits for one that is silent before the job ends with an error
PATIENCE = timedelta(minutes=10)


class Disagreement(RuntimeError):
    """The processes have not the same to go on from; the message says what they have."""


@contextmanager
def started(device: str = "auto") -> Iterator[torch.device]:
    """Join the processes that torchrun started, or none, for as long as the block lasts.

    A process that fails leaves without a word to the others: on GPUs they would all have to take
    part in a farewell, and the first error would wait for it. That a process has ended is seen by
    torchrun, which ends the others.

    Yields:
        This process's device; on CUDA a GPU of its own.

    Raises:
        ValueError: the device is not here, or this machine has fewer GPUs than processes.
    """
    chosen = workspace.choose_device(device)
    if "WORLD_SIZE" not in os.environ:
        yield chosen
        return
    if chosen.type == "cuda":
        number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= gpus:
            raise ValueError(
                f"process {number} of this machine has no GPU: there are {gpus}; start torchrun "
                "with that --nproc-per-node"
            )
        chosen = torch.device("cuda", number)
        torch.cuda.set_device(chosen)
        distributed.init_process_group("nccl", timeout=PATIENCE, device_id=chosen)
    else:
        distributed.init_process_group("gloo", timeout=PATIENCE)
    yield chosen
    distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def first() -> bool:
    """Whether this is the process that reports and writes."""
    return place()[0] == 0


def share(count: int) -> slice:
    """This process's part of `count` things: neighbours, each in one part, sizes within 1.

    >>> share(7)
    slice(0, 7, None)
    """
    number, processes = place()
    return slice(count * number // processes, count * (number + 1) // processes)


def replicate(network: nn.Module) -> nn.Module:
    """What to call in place of the network in training: there, gradients are added up.

    Each process's loss is therefore a sum over its share, divided by the size of the whole batch.
    On GPUs batch norm takes its statistics over the whole batch; on the CPU, where PyTorch cannot,
    over each share.
    """
    if place()[1] == 1:
        return network
    device = next(network.parameters()).device
    if device.type != "cuda":
        replica = DistributedDataParallel(network)
    else:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        replica = DistributedDataParallel(network, [device])
    replica.register_comm_hook(None, add_up)
    return replica


def add_up(group: object, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
    """DistributedDataParallel's hook: the sum of the processes' gradients, not their mean."""
    sums = distributed.all_reduce(bucket.buffer(), async_op=True).get_future()
    return sums.then(lambda done: done.value()[0])


def total(values: Tensor) -> Tensor:
    """The sum of the processes' tensors, each filled at its own share and 0 elsewhere."""
    if place()[1] == 1:
        return values
    values = values.to(communicator())
    distributed.all_reduce(values)
    return values


def check_batch(smallest: int) -> None:
    """Raises ValueError where a batch has not one photograph for each process."""
    processes = place()[1]
    if smallest < processes:
        raise ValueError(
            f"a batch of {smallest} has not one photograph for each of {processes} processes: "
            "raise batch_size, or start fewer"
        )


def agree(value: int, what: str) -> None:
    """Raises Disagreement where the processes' numbers differ, such as the epoch to go on after."""
    if place()[1] == 1:
        return
    largest = torch.tensor([value, -value], device=communicator())
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    most, least = largest[0].item(), -largest[1].item()
    if least != most:
        raise Disagreement(
            f"{what}: the processes have {least} to {most}; runs/ must be one folder for all"
        )


def wait() -> None:
    """Until every process is here."""
    if place()[1] > 1:
        distributed.barrier()


def copy_buffers(network: nn.Module) -> None:
    """Give every process the first one's running statistics, so that all evaluate one network."""
    if place()[1] > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)


def seed_dropout(seed: int) -> None:
    """Seed what the network itself draws, on each process its own."""
    torch.manual_seed(seed + 1_000_000_007 * place()[0])


def communicator() -> torch.device:
    """Where tensors must lie to be sent."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
