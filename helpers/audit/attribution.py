"""Post-hoc explanations of a finished network's answer: three of captum's methods, on one footing.

For notebook 06. All explain the class that the network calls. One logit stands for two: where it is
positive that is melanoma, elsewhere benign. What speaks for the class is what raises the logit or,
for benign, what lowers it: each attribution to the logit of the whole photograph times that logit's
sign. Networks are put in evaluation mode; images [B, 3, H, W] are float32.
"""

from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from helpers.model import LAST_RELU, AttnVGG, Output

# pixels: the side of a cell of Grad-CAM's map and of pool-4's; the other methods' are as large
CELL = 16
STEPS = 16  # from the mean colour to the photograph, of Integrated Gradients


def logit_of(network: AttnVGG, outputs: list[Output]) -> Callable[[Tensor], Tensor]:
    """The network as captum takes it.

    No gradient is kept for the weights: an explanation needs that of the images alone.

    Args:
        network: of one logit.
        outputs: each pass's output is appended to it.

    Returns:
        A function, images -> logit [B]. It raises ValueError for a network of several logits.
    """
    weights = {name: value.detach() for name, value in network.eval().named_parameters()}

    def logit(images: Tensor) -> Tensor:
        outputs.append(functional_call(network, weights, (images,)))
        if outputs[-1].logits.shape[1] != 1:
            raise ValueError(f"expected a network of one logit, not {outputs[-1].logits.shape[1]}")
        return outputs[-1].logits.squeeze(1)

    return logit


def sign(logits: Tensor) -> Tensor:
    """1 where the network calls melanoma, -1 where it calls benign.

    Args:
        logits: [B, 1].

    Returns:
        [B, 1, 1, 1].

    >>> sign(torch.tensor([[2.5], [-0.5]])).flatten().tolist()
    [1.0, -1.0]
    """
    return torch.where(logits.detach() > 0, 1.0, -1.0)[:, :, None, None]


@torch.no_grad()
def called(network: AttnVGG, images: Tensor) -> Tensor:
    """`sign` of the network's logits for these images."""
    return sign(logit_of(network, [])(images)[:, None])


def grad_cam(network: AttnVGG, images: Tensor) -> tuple[Tensor, Output]:
    """Grad-CAM at block 5: its channels, weighted by how much they raise the called class's score.

    Selvaraju et al., "Grad-CAM", ICCV 2017.

    Args:
        network: of one logit.
        images: [B, 3, H, W], normalised.

    Returns:
        The map [B, 1, H/16, W/16], 0 or more, and the network's output of the same pass.

    Raises:
        ValueError: for a network of several logits.
    """
    outputs = []
    cam = LayerGradCam(logit_of(network, outputs), network.backbone[LAST_RELU]).attribute(images)
    output = Output(*(None if part is None else part.detach() for part in outputs[-1]))
    return (cam.detach() * sign(output.logits)).relu(), output


def integrated_gradients(network: AttnVGG, images: Tensor, *, steps: int = STEPS) -> Tensor:
    """Integrated Gradients of each cell of 16 x 16 pixels.

    Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017. The baseline is the
    mean colour, 0 once normalised: an attribution is a multiple of (pixel - baseline), and black
    would leave dark lesions without any.

    Args:
        network: of one logit.
        images: [B, 3, H, W], normalised; sides that are multiples of 16.
        steps: from the baseline to the photograph.

    Returns:
        [B, 1, H/16, W/16], signed. Channels and pixels are added up, so that all cells sum to the
        called class's score for the photograph less its score for the baseline, but for what
        `steps` leave out.

    Raises:
        ValueError: for a network of several logits.
    """
    parts = IntegratedGradients(logit_of(network, [])).attribute(
        images, baselines=0, n_steps=steps, internal_batch_size=len(images)
    )  # [B, 3, H, W]
    cells = functional.avg_pool2d(parts.sum(dim=1, keepdim=True), CELL, divisor_override=1)
    return cells.detach() * called(network, images)


def occlusion(network: AttnVGG, images: Tensor) -> Tensor:
    """Occlusion of each cell of 16 x 16 pixels: by how much hiding it lowers the score.

    Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014. A square
    of 2 x 2 cells gets the mean colour and moves by one cell at a time.

    Args:
        network: of one logit.
        images: [B, 3, H, W], normalised; sides that are multiples of 16.

    Returns:
        [B, 1, H/16, W/16], signed: how far the called class's score falls, the mean over the
        squares that hide the cell.

    Raises:
        ValueError: for a network of several logits.
    """
    falls = Occlusion(logit_of(network, [])).attribute(
        images, (3, 2 * CELL, 2 * CELL), strides=(3, CELL, CELL), baselines=0
    )  # [B, 3, H, W]
    return functional.avg_pool2d(falls.mean(dim=1, keepdim=True), CELL) * called(network, images)


def posthoc(network: AttnVGG, images: Tensor, *, batch_size: int = 8) -> dict[str, Tensor]:
    """The three maps of photographs: what speaks for the called class, 0 where nothing does.

    Args:
        network: of one logit.
        images: [B, 3, H, W], normalised; sides that are multiples of 16.
        batch_size: photographs at a time.

    Returns:
        grad_cam, integrated_gradients and occlusion, each [B, 1, H/16, W/16].

    Raises:
        ValueError: for a network of several logits.
    """
    methods = {
        "grad_cam": lambda part: grad_cam(network, part)[0],
        "integrated_gradients": lambda part: integrated_gradients(network, part).relu(),
        "occlusion": lambda part: occlusion(network, part).relu(),
    }
    return {
        name: torch.cat([method(part) for part in images.split(batch_size)])
        for name, method in methods.items()
    }
