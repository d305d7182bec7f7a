"""Augmentation of a whole batch: a draw for each photograph, one interpolation, one colour matrix.

Whatever is drawn for a photograph, its pixels are interpolated once, and its mask takes the same
way.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from helpers import workspace

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# weight of red, green and blue in grey (ITU-R BT.601), as torchvision has it
LUMA = (0.299, 0.587, 0.114)


class Augmentation(NamedTuple):
    """What a photograph may be drawn through. Ranges are symmetric and drawn uniformly."""

    rotation: float = 0.0  # up to so many degrees to either side
    quarter_turns: bool = False  # by 0, 90, 180 or 270 degrees
    horizontal_flip: bool = False
    vertical_flip: bool = False
    view: tuple[float, float] = (1.0, 1.0)  # share of the photograph's side that is seen
    shift: bool = False  # the part that is seen lies anywhere, not in the middle
    colour: float = 0.0  # brightness, contrast and saturation each by up to this share


class Draws(NamedTuple):
    """One draw for each photograph."""

    geometry: Tensor  # [B, 2, 3], from a place in the output to one in the input, both -1 to 1
    colour: Tensor  # [B, 3, 4], red, green, blue and 1 -> red, green, blue

    def of(self, share: slice) -> "Draws":
        """The draws of some of the photographs."""
        return Draws(self.geometry[share], self.colour[share])


def draw(count: int, augmentation: Augmentation, generator: torch.Generator) -> Draws:
    """Draw geometry and colour for `count` photographs.

    On the CPU, so that every device sees the same.

    >>> draws = draw(5, Augmentation(rotation=10), torch.Generator().manual_seed(0))
    >>> draws.geometry.shape, draws.colour.shape
    (torch.Size([5, 2, 3]), torch.Size([5, 3, 4]))
    """
    # all is drawn whether it is used or not: a recipe's other draws stay what they are
    geometry = draw_geometry(count, augmentation, generator)
    return Draws(geometry, draw_colour(count, augmentation.colour, generator))


def draw_geometry(count: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Turns, flips, zoom and shift as one matrix a photograph, [B, 2, 3]."""
    angle = torch.deg2rad(uniform(count, -augmentation.rotation, augmentation.rotation, generator))
    turns = torch.randint(4, (count,), generator=generator)
    flips = 1 - 2.0 * torch.randint(2, (2, count), generator=generator)  # -1 or 1
    view = uniform(count, *augmentation.view, generator)
    place = torch.rand(2, count, generator=generator)

    if augmentation.quarter_turns:
        angle = angle + turns * (torch.pi / 2)
    x = view * flips[0] if augmentation.horizontal_flip else view
    y = view * flips[1] if augmentation.vertical_flip else view
    offset = torch.zeros(2, count)
    if augmentation.shift:
        offset = (2 * place - 1) * (1 - view)
    first = torch.stack([x * angle.cos(), -y * angle.sin(), offset[0]], dim=1)  # [B, 3]
    second = torch.stack([x * angle.sin(), y * angle.cos(), offset[1]], dim=1)
    return torch.stack([first, second], dim=1)


def draw_colour(count: int, amount: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation as one matrix a photograph, [B, 3, 4]."""
    brightness = uniform(count, 1 - amount, 1 + amount, generator).view(-1, 1, 1)
    contrast = uniform(count, 1 - amount, 1 + amount, generator).view(-1, 1, 1)
    saturation = uniform(count, 1 - amount, 1 + amount, generator).view(-1, 1, 1)
    matrix = saturation * torch.eye(3) + (1 - saturation) * torch.tensor(LUMA)  # [B, 3, 3]
    about_grey = (0.5 - 0.5 * contrast).expand(-1, 3, 1)  # contrast leaves middle grey as it is
    return torch.cat([brightness * contrast * matrix, about_grey], dim=2)


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Numbers between `low` and `high`, [count]."""
    return low + (high - low) * torch.rand(count, generator=generator)


def plain(count: int, view: float = 1.0) -> Draws:
    """The draws of evaluation: the photographs in their own colours, not turned.

    view: share of the photograph's side that is seen, in the middle.
    """
    geometry = torch.tensor([[view, 0.0, 0.0], [0.0, view, 0.0]]).expand(count, 2, 3)
    return Draws(geometry, torch.eye(3, 4).expand(count, 3, 4))


def transform(
    pixels: Tensor,
    draws: Draws,
    side: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """The photographs through their draws, as the network takes them.

    Args:
        pixels: uint8 [B, S, S, 3].
        draws: one for each photograph.
        side: of what comes out, in pixels.
        mean, std: of red, green and blue, to normalise with.

    Returns:
        float32 [B, 3, side, side] in channels_last memory, on the pixels' device.
    """
    images = pixels.permute(0, 3, 1, 2).float() / 255  # [B, 3, S, S]
    images = warp(images, draws.geometry, side)  # [B, 3, side, side]
    colour = workspace.send(draws.colour, images.device)
    images = torch.einsum("bij,bjhw->bihw", colour[:, :, :3], images) + colour[:, :, 3, None, None]
    mean = workspace.send(torch.tensor(mean).view(1, 3, 1, 1), images.device)
    std = workspace.send(torch.tensor(std).view(1, 3, 1, 1), images.device)
    return ((images.clamp(0, 1) - mean) / std).contiguous(memory_format=torch.channels_last)


def warp(images: Tensor, geometry: Tensor, side: int) -> Tensor:
    """Sample [B, C, S, S] bilinearly into [B, C, side, side].

    Outside lies the photograph mirrored, not black.
    """
    B, C = images.shape[:2]
    geometry = workspace.send(geometry, images.device)
    grid = functional.affine_grid(geometry, [B, C, side, side], align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def warp_masks(masks: Tensor, draws: Draws, side: int) -> Tensor:
    """uint8 masks [B, S, S] the way of their photographs: [B, 1, side, side], 0 to 1."""
    return warp(masks[:, None].float() / 255, draws.geometry, side)


def denormalise(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalised [B, 3, H, W] -> photographs to show, float [B, H, W, 3], 0 to 1."""
    mean = torch.tensor(mean).view(1, 3, 1, 1)
    std = torch.tensor(std).view(1, 3, 1, 1)
    pictures = images.detach().float().cpu() * std + mean
    return pictures.clamp(0, 1).permute(0, 2, 3, 1).numpy()
