"""Post-hoc explanations of a finished network's answer: three of captum's methods, on one footing.

For notebooks 05 to 07. All explain the call that was made: melanoma where the logit reaches the
threshold (`logit_threshold` gives it for a network's config), elsewhere benign. What speaks for the
call is what raises the logit or, for benign, what lowers it: each attribution to the logit of the
whole photograph, times the side of the threshold that this logit is on. Networks are put in
evaluation mode; images [B, 3, H, W] are float32.
"""

from collections.abc import Callable

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from scipy.special import expit
from scipy.special import logit as log_odds
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from tqdm.auto import tqdm

from helpers import workspace
from helpers.model import LAST_RELU, AttnVGG, Output

# pixels: the side of a cell of Grad-CAM's map and of pool-4's; the other methods' are as large
CELL = 16
STEPS = 16  # from the mean colour to the photograph, of Integrated Gradients


def logit_of(
    network: AttnVGG,
    outputs: list[Output],
    bar: tqdm | None = None,
) -> Callable[[Tensor], Tensor]:
    """The network as captum takes it.

    No gradient is kept for the weights: an explanation needs that of the images alone.

    Args:
        network: of one logit.
        outputs: each pass's output is appended to it.
        bar: each pass moves it on.

    Returns:
        A function, images -> logit [B]. It raises ValueError for a network of several logits.
    """
    weights = {name: value.detach() for name, value in network.eval().named_parameters()}

    def logit(images: Tensor) -> Tensor:
        outputs.append(functional_call(network, weights, (images,)))
        if outputs[-1].logits.shape[1] != 1:
            raise ValueError(f"expected a network of one logit, not {outputs[-1].logits.shape[1]}")
        if bar is not None:
            bar.update()
        return outputs[-1].logits.squeeze(1)

    return logit


def logit_threshold(config: dict) -> float:
    """The logit from which on a network calls melanoma.

    That is where its calibrated probability, the sigmoid of slope * logit + intercept
    (`metrics.probability`), reaches the threshold that notebook 04 chose on validation.

    Args:
        config: of the network's checkpoint, with calibration (slope, intercept) and threshold.

    Returns:
        The logit. Without both in config 0, where an uncalibrated probability is one half. With
        slope 0 all photographs have one probability, so that either all are called melanoma
        (minus infinity) or none is (infinity).

    Raises:
        ValueError: the slope is below 0; the threshold is no probability.

    >>> calibration = {"slope": 2.0, "intercept": 0.5}
    >>> logit_threshold({"calibration": calibration, "threshold": 0.5})
    -0.25
    >>> logit_threshold({})
    0.0
    """
    calibration = config.get("calibration")
    threshold = config.get("threshold")
    if calibration is None or threshold is None:
        return 0.0
    slope = calibration["slope"]
    if slope < 0:
        raise ValueError(
            f"the calibration's slope is {slope}, expected 0 or more: with less, a higher logit "
            "would mean a lower probability. Calibrate the network again (notebook 04)"
        )
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"the threshold is {threshold}, expected a probability, from 0 to 1. Train the network "
            "again (notebook 04), which chooses one"
        )
    if slope == 0:
        return -np.inf if expit(calibration["intercept"]) >= threshold else np.inf
    return float((log_odds(threshold) - calibration["intercept"]) / slope)


def side(logits: Tensor, threshold: float = 0.0) -> Tensor:
    """1 where the network calls melanoma, -1 where it calls benign.

    Args:
        logits: [B, 1].
        threshold: of `logit_threshold`; a logit from here on is called melanoma.

    Returns:
        [B, 1, 1, 1].

    >>> side(torch.tensor([[2.5], [-0.2], [-0.5]]), threshold=-0.3).flatten().tolist()
    [1.0, 1.0, -1.0]
    """
    # in the logits' own precision: the threshold is the logit of a validation photograph
    called = logits.detach() >= torch.tensor(threshold, dtype=logits.dtype, device=logits.device)
    return torch.where(called, 1.0, -1.0)[:, :, None, None]


@torch.no_grad()
def called(network: AttnVGG, images: Tensor, threshold: float = 0.0) -> Tensor:
    """`side` of the network's logits for these images."""
    return side(logit_of(network, [])(images)[:, None], threshold)


def grad_cam(
    network: AttnVGG,
    images: Tensor,
    *,
    threshold: float = 0.0,
) -> tuple[Tensor, Output]:
    """Grad-CAM at block 5: its channels, weighted by how much they raise the called class's score.

    Selvaraju et al., "Grad-CAM", ICCV 2017.

    Args:
        network: of one logit.
        images: [B, 3, H, W], normalised.
        threshold: of `logit_threshold`; a logit from here on is called melanoma.

    Returns:
        The map [B, 1, H/16, W/16], 0 or more, and the network's output of the same pass. It is 0
        everywhere where block 5 is not part of the answer: without attention and bypass.

    Raises:
        ValueError: for a network of several logits.
    """
    outputs = []
    if network.attention == "none" and not network.bypass:
        with torch.no_grad():
            logit_of(network, outputs)(images)
        H, W = images.shape[2:]
        nothing = torch.zeros(len(images), 1, H // CELL, W // CELL, device=images.device)
        return nothing, outputs[0]
    cam = LayerGradCam(logit_of(network, outputs), network.backbone[LAST_RELU]).attribute(images)
    output = Output(*(None if part is None else part.detach() for part in outputs[-1]))
    return (cam.detach() * side(output.logits, threshold)).relu(), output


def integrated_gradients(
    network: AttnVGG,
    images: Tensor,
    *,
    steps: int = STEPS,
    threshold: float = 0.0,
) -> Tensor:
    """Integrated Gradients of each cell of 16 x 16 pixels.

    Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017. The baseline is the
    mean colour, 0 once normalised: an attribution is a multiple of (pixel - baseline), and black
    would leave dark lesions without any.

    Args:
        network: of one logit.
        images: [B, 3, H, W], normalised; sides that are multiples of 16.
        steps: from the baseline to the photograph.
        threshold: of `logit_threshold`; a logit from here on is called melanoma.

    Returns:
        [B, 1, H/16, W/16], signed. Channels and pixels are added up, so that all cells sum to the
        called class's score for the photograph less its score for the baseline, but for what
        `steps` leave out.

    Raises:
        ValueError: for a network of several logits.
    """
    with workspace.progress("steps", total=steps) as bar:
        parts = IntegratedGradients(logit_of(network, [], bar)).attribute(
            images, baselines=0, n_steps=steps, internal_batch_size=len(images)
        )  # [B, 3, H, W]
    cells = functional.avg_pool2d(parts.sum(dim=1, keepdim=True), CELL, divisor_override=1)
    return cells.detach() * called(network, images, threshold)


def occlusion(network: AttnVGG, images: Tensor, *, threshold: float = 0.0) -> Tensor:
    """Occlusion of each cell of 16 x 16 pixels: by how much hiding it lowers the score.

    Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014. A square
    of 2 x 2 cells gets the mean colour and moves by one cell at a time.

    Args:
        network: of one logit.
        images: [B, 3, H, W], normalised; sides that are multiples of 16.
        threshold: of `logit_threshold`; a logit from here on is called melanoma.

    Returns:
        [B, 1, H/16, W/16], signed: how far the called class's score falls, the mean over the
        squares that hide the cell.

    Raises:
        ValueError: for a network of several logits.
    """
    rows, columns = (side // CELL - 1 for side in images.shape[2:])
    with workspace.progress("squares", total=1 + rows * columns) as bar:  # and none hidden
        falls = Occlusion(logit_of(network, [], bar)).attribute(
            images, (3, 2 * CELL, 2 * CELL), strides=(3, CELL, CELL), baselines=0
        )  # [B, 3, H, W]
    cells = functional.avg_pool2d(falls.mean(dim=1, keepdim=True), CELL)
    return cells * called(network, images, threshold)


def posthoc(
    network: AttnVGG,
    images: Tensor,
    *,
    batch_size: int = 8,
    threshold: float = 0.0,
) -> dict[str, Tensor]:
    """The three maps of photographs: what speaks for the called class, 0 where nothing does.

    Args:
        network: of one logit.
        images: [B, 3, H, W], normalised; sides that are multiples of 16.
        batch_size: photographs at a time.
        threshold: of `logit_threshold`; a logit from here on is called melanoma.

    Returns:
        grad_cam, integrated_gradients and occlusion, each [B, 1, H/16, W/16].

    Raises:
        ValueError: for a network of several logits.
    """
    maps = {"grad_cam": [], "integrated_gradients": [], "occlusion": []}
    for part in workspace.progress("explained", images.split(batch_size)):
        gradients = integrated_gradients(network, part, threshold=threshold)
        falls = occlusion(network, part, threshold=threshold)
        maps["grad_cam"].append(grad_cam(network, part, threshold=threshold)[0])
        maps["integrated_gradients"].append(gradients.relu())
        maps["occlusion"].append(falls.relu())
    return {name: torch.cat(parts) for name, parts in maps.items()}
