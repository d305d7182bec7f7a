"""What the CPU computes in place of a GPU, for `pretend`.

The parts of SyncBatchNorm, which it lacks, and products of half precision, which tensor cores add
up in float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
HALF = (torch.float16, torch.bfloat16)
# multiply halves and add up in float32; a CPU's own fp16 may be ten times slower besides
TENSOR_CORES = {
    aten.convolution.default,
    aten.convolution_backward.default,
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
}


def run(func: Callable, args: tuple, kwargs: dict) -> object:
    """An operation on tensors of the pretend GPU."""
    if func in SYNC_BATCH_NORM:
        return SYNC_BATCH_NORM[func](*args, **kwargs)
    tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
    halves = [tensor.dtype for tensor in tensors if tensor.dtype in HALF]
    if func not in TENSOR_CORES or not halves:
        return func(*args, **kwargs)

    def widened(value: object) -> object:
        return value.float() if isinstance(value, Tensor) and value.dtype == halves[0] else value

    def rounded(value: object) -> object:
        return value.to(halves[0]) if isinstance(value, Tensor) else value

    return tree_map(rounded, func(*tree_map(widened, args), **kwargs))


# batch norm over several GPUs; the arguments are those of PyTorch's CUDA operations


def by_channel(x: Tensor) -> Tensor:
    """[B, C, H, W] -> float32 [C, B*H*W]."""
    return x.transpose(0, 1).flatten(1).float()


def wide(vector: Tensor) -> Tensor:
    """[C] -> [1, C, 1, 1]."""
    return vector[None, :, None, None]


def as_given(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype, memory_format=torch.channels_last)


def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation of each channel."""
    flat = by_channel(x)
    return flat.mean(1), (flat.var(1, unbiased=False) + eps).rsqrt()


def gather(
    x: Tensor,
    means: Tensor,
    invstds: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same over all GPUs, from each one's [GPUs, C] and its number of positions."""
    counts = counts.float()[:, None]  # [GPUs, 1]
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    variances = invstds**-2 - eps + (means - mean) ** 2
    variance = (variances * counts).sum(0) / count
    if running_mean is not None:
        running_mean.mul_(1 - momentum).add_(momentum * mean)
        running_var.mul_(1 - momentum).add_(momentum * variance * count / (count - 1))
    return mean, (variance + eps).rsqrt()


def normalised(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, eps: float
) -> Tensor:
    return as_given((x.float() - wide(mean)) * wide(invstd * weight) + wide(bias), x)


def reduced(
    grad: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor, *_: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of the gradient, and of its product with the centred input; of weight and bias."""
    flat = by_channel(grad)
    total = flat.sum(1)
    dot = (flat * (by_channel(x) - mean[:, None])).sum(1)
    return total, dot, dot * invstd, total.clone()


def backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor,
    total: Tensor,
    dot: Tensor,
    counts: Tensor,
) -> Tensor:
    count = counts.sum().float()
    centred = (x.float() - wide(mean)) * wide(dot / count * invstd**2)
    return as_given((grad.float() - wide(total / count) - centred) * wide(invstd * weight), x)


SYNC_BATCH_NORM = {
    aten.batch_norm_stats.default: stats,
    aten.batch_norm_gather_stats_with_counts.default: gather,
    aten.batch_norm_elemt.default: normalised,
    aten.batch_norm_backward_reduce.default: reduced,
    aten.batch_norm_backward_elemt.default: backward,
}
