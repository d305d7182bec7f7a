"""Augmentation of a whole batch: one draw for each photograph, one interpolation, one colour matrix."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUMA = (
    0.299,
    0.587,
    0.114,
)  # weight of red, green and blue in grey (ITU-R BT.601), as torchvision has it


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
    """One draw for each photograph: geometry [B, 2, 3] (from output to input, -1 to 1) and colour [B, 3, 4]."""

    geometry: Tensor
    colour: Tensor


def draw(count: int, augmentation: Augmentation, generator: torch.Generator) -> Draws:
    """Draw geometry and colour for `count` photographs on the CPU, so that every device sees the same ones."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle = torch.deg2rad(uniform(-augmentation.rotation, augmentation.rotation))
    turns = torch.randint(4, (count,), generator=generator) * (torch.pi / 2)
    angle = angle + turns if augmentation.quarter_turns else angle
    flips = 1 - 2.0 * torch.randint(2, (2, count), generator=generator)  # -1 or 1
    view, place = uniform(*augmentation.view), torch.rand(2, count, generator=generator)
    x = view * (flips[0] if augmentation.horizontal_flip else 1)
    y = view * (flips[1] if augmentation.vertical_flip else 1)
    offset = (2 * place - 1) * (1 - view) if augmentation.shift else torch.zeros(2, count)
    geometry = torch.stack(
        [
            torch.stack([x * angle.cos(), -y * angle.sin(), offset[0]], dim=1),
            torch.stack([x * angle.sin(), y * angle.cos(), offset[1]], dim=1),
        ],
        dim=1,
    )
    amount = augmentation.colour
    brightness, contrast, saturation = (
        uniform(1 - amount, 1 + amount).view(-1, 1, 1) for _ in range(3)
    )
    matrix = saturation * torch.eye(3) + (1 - saturation) * torch.tensor(LUMA)  # [B, 3, 3]
    colour = torch.cat(
        [brightness * contrast * matrix, (0.5 - 0.5 * contrast).expand(-1, 3, 1)], dim=2
    )
    return Draws(geometry, colour)


def plain(count: int, view: float = 1.0) -> Draws:
    """The draws of evaluation: the middle of each photograph (all of it, if `view` is 1) in its own colours."""
    geometry = torch.tensor([[view, 0.0, 0.0], [0.0, view, 0.0]]).expand(count, 2, 3)
    return Draws(geometry, torch.eye(3, 4).expand(count, 3, 4))


def transform(
    pixels: Tensor, draws: Draws, side: int, *, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """uint8 [B, S, S, 3] -> normalised float32 [B, 3, side, side] in channels_last memory, on the pixels' device."""
    images = pixels.permute(0, 3, 1, 2).float() / 255  # [B, 3, S, S]
    images = warp(images, draws.geometry, side)  # [B, 3, side, side]
    colour = draws.colour.to(images.device, non_blocking=True)
    images = torch.einsum("bij,bjhw->bihw", colour[:, :, :3], images) + colour[:, :, 3, None, None]
    mean, std = (
        torch.tensor(one).view(1, 3, 1, 1).to(images.device, non_blocking=True)
        for one in (mean, std)
    )
    return ((images.clamp(0, 1) - mean) / std).contiguous(memory_format=torch.channels_last)


def warp(images: Tensor, geometry: Tensor, side: int) -> Tensor:
    """Sample [B, C, S, S] bilinearly into [B, C, side, side]; outside lies the photograph mirrored, not black."""
    B, C = images.shape[:2]
    geometry = geometry.to(images.device, non_blocking=True)
    grid = functional.affine_grid(geometry, [B, C, side, side], align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def denormalise(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalised [B, 3, H, W] -> photographs to show, float [B, H, W, 3], 0 to 1."""
    mean, std = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
    return (images.detach().float().cpu() * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def warp_masks(masks: Tensor, draws: Draws, side: int) -> Tensor:
    """uint8 masks [B, S, S] through the geometry of their photographs: [B, 1, side, side], 0 to 1."""
    return warp(masks[:, None].float() / 255, draws.geometry, side)
