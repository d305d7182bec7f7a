"""What a network costs beside the VGG16 that it comes from: parameters, work, time and memory.

For the claim that it is "lighter to train". Counts and memory are worked out on tensors without
content, so that no machine is too small; time is taken on this one.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import vgg16_bn

from helpers import workspace
from helpers.model import AttnVGG


def cost(build: Callable[[], nn.Module]) -> dict[str, int]:
    """What a network of a 224 x 224 image costs; no memory is taken, nothing is computed.

    Args:
        build: makes the network, such as `AttnVGG`.

    Returns:
        parameters, and multiply-adds of one image's forward pass.
    """
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = build().eval()
        network(torch.zeros(1, 3, 224, 224))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply-adds": counter.get_total_flops() // 2,
    }


def training_bytes(build: Callable[[], nn.Module], *, batch: int = 1, side: int = 224) -> int:
    """Bytes that a training step holds; none of them is taken here.

    Adam's weights, gradients and two running means, and all that the forward pass keeps for the
    backward pass, in float32.

    Args:
        build: makes the network, such as `AttnVGG`.
        batch: photographs in the step.
        side: of a photograph, in pixels.
    """
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (storage.nbytes(), tensor)  # the tensor keeps the number its own
        return tensor

    with FakeTensorMode():
        network = build().train()
        own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = network(torch.zeros(batch, 3, side, side))  # noqa: F841 - alive to the sum
        activations = sum(size for number, (size, _) in kept.items() if number not in own)
        weights = sum(parameter.numel() for parameter in network.parameters())
    return 16 * weights + activations


def step_seconds(network: nn.Module, images: Tensor) -> float:
    """Seconds of one forward and backward pass of images [B, 3, H, W].

    On a CPU the processor's own, so that what else the machine does counts less; else the clock's.
    """
    clock = time.process_time if images.device.type == "cpu" else time.perf_counter
    start = clock()
    output = network(images)
    getattr(output, "logits", output).sum().backward()
    if images.device.type != "cpu":
        torch.accelerator.synchronize()
    network.zero_grad()
    return clock() - start


def lighter(
    attention: str,
    device: torch.device,
    *,
    bypass: bool = True,
    batch: int = 1,
    side: int = 224,
    repeats: int = 3,
) -> dict:
    """What training costs beside VGG16-BN: `step_seconds` on this machine, and memory.

    Args:
        attention: of the network.
        device: where a step is timed.
        bypass: of the network.
        batch: photographs in a step.
        side: of a photograph, in pixels.
        repeats: steps of each network that are timed, in turns, after one that is not.

    Returns:
        seconds and bytes, each by "AttnVGG" and "VGG16-BN" (seconds: a list); batch and side.
    """
    builds = {
        "AttnVGG": lambda: AttnVGG(attention=attention, bypass=bypass),
        "VGG16-BN": vgg16_bn,
    }
    memory = {}
    seconds = {name: [] for name in builds}
    for name, build in builds.items():
        memory[name] = training_bytes(build, batch=batch, side=side)
    images = torch.zeros(batch, 3, side, side, device=device)
    networks = {name: build().to(device).train() for name, build in builds.items()}
    for repeat in workspace.progress("steps", range(repeats + 1)):
        for name, network in networks.items():
            taken = step_seconds(network, images)
            if repeat > 0:
                seconds[name].append(taken)
    return {"seconds": seconds, "bytes": memory, "batch": batch, "side": side}
