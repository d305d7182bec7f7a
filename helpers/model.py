"""The network of notebook 03: VGG16-BN without its dense layers, with two attention blocks.

Written from the equations of Yan, Kawahara and Hamarneh, "Melanoma Recognition via Visual Attention" (IPMI 2019), which
builds on Jetley et al., "Learn to Pay Attention" (ICLR 2018), and on VGG (Simonyan and Zisserman, 2014).
"""

import pickle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VGG16_BN_Weights
from torchvision.models.vgg import cfgs, make_layers

from helpers import workspace

POOL3, POOL4, LAST_RELU = 23, 33, 42  # layers of torchvision's vgg16_bn().features


class Output(NamedTuple):
    """What `AttnVGG` returns, in float32: logits [B, classes], maps [B, 1, H/8, W/8] and [B, 1, H/16, W/16] or None."""

    logits: Tensor
    pool3_map: Tensor | None
    pool4_map: Tensor | None


class AttentionBlock(nn.Module):
    """Weigh the positions of local features by how well they agree with a guide that has seen the whole image.

    Score `c = phi(relu(W_l l + up(W_g g)))`. "softmax": the map is c's softmax over all positions and the vector its
    weighted sum of the local features (Jetley et al.); "sigmoid": the map is c's sigmoid and the vector the weighted
    mean (Yan et al.). Scores and maps are computed in float32: in half precision hundreds of positions tie.
    """

    def __init__(
        self,
        local_channels: int,
        guide_channels: int,
        *,
        attention_channels: int = 256,
        normalization: str = "softmax",
    ):
        super().__init__()
        if normalization not in ("softmax", "sigmoid"):
            raise ValueError(f"normalization is 'softmax' or 'sigmoid', not {normalization!r}")
        self.normalization = normalization
        self.local_projection = nn.Conv2d(
            local_channels, attention_channels, kernel_size=1, bias=False
        )
        self.guide_projection = nn.Conv2d(
            guide_channels, attention_channels, kernel_size=1, bias=False
        )
        self.score = nn.Conv2d(attention_channels, 1, kernel_size=1)
        for layer in (self.local_projection, self.guide_projection, self.score):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.score.bias)

    def forward(self, local: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Local features [B, C, H, W] and guide [B, G, h, w] -> map [B, 1, H, W] (float32) and vector [B, C]."""
        B, C, H, W = local.shape
        guide = functional.interpolate(
            self.guide_projection(guide), size=(H, W), mode="bilinear", align_corners=False
        )
        hidden = functional.relu(self.local_projection(local) + guide)  # [B, A, H, W]
        with torch.autocast(local.device.type, enabled=False):
            scores = functional.conv2d(
                hidden.float(), self.score.weight.float(), self.score.bias.float()
            )
            if self.normalization == "softmax":
                weights = scores.flatten(1).softmax(dim=1).view(B, 1, H, W)
                vector = (weights * local).sum(dim=(2, 3))  # [B, C]
            else:
                weights = scores.sigmoid()  # [B, 1, H, W]
                vector = (weights * local).mean(dim=(2, 3))  # [B, C]
        return weights, vector


class AttnVGG(nn.Module):
    """VGG16-BN whose classifier sees the global average of pool-5 and two attended vectors, of pool-3 and of pool-4.

    attention: "softmax", "sigmoid", or "none" (the paper's matched control: plain means instead of attended vectors).
    weights: None (Kaiming normal), "imagenet" (torchvision downloads them) or the path of a `vgg16_bn` checkpoint.
    Images: [B, 3, H, W], normalised, H and W multiples of 32. Raises ValueError for anything else.
    """

    def __init__(
        self,
        classes: int = 1,
        *,
        attention: str = "softmax",
        dropout: float = 0.0,
        weights: str | Path | None = None,
    ):
        super().__init__()
        if attention not in ("softmax", "sigmoid", "none"):
            raise ValueError(f"attention is 'softmax', 'sigmoid' or 'none', not {attention!r}")
        self.backbone = make_layers(cfgs["D"], batch_norm=True)
        if attention != "none":
            self.attention3 = AttentionBlock(256, 512, normalization=attention)
            self.attention4 = AttentionBlock(512, 512, normalization=attention)
        self.attention = attention
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(512 + 256 + 512, classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        if weights is None:
            for layer in self.backbone:
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
        else:
            self.backbone.load_state_dict(backbone_weights(weights))

    def forward(self, images: Tensor) -> Output:
        B, C, H, W = images.shape
        if C != 3 or H % 32 or W % 32 or not H or not W:
            raise ValueError(
                f"images are [B, 3, H, W] with H and W multiples of 32, not {list(images.shape)}"
            )
        pool3 = self.backbone[: POOL3 + 1](images)  # [B, 256, H/8, W/8]
        pool4 = self.backbone[POOL3 + 1 : POOL4 + 1](pool3)  # [B, 512, H/16, W/16]
        pool5 = self.backbone[POOL4 + 1 :](pool4)  # [B, 512, H/32, W/32]
        if self.attention == "none":
            map3, vector3 = None, pool3.mean(dim=(2, 3))
            map4, vector4 = None, pool4.mean(dim=(2, 3))
        else:
            map3, vector3 = self.attention3(pool3, pool5)
            map4, vector4 = self.attention4(pool4, pool5)
        features = torch.cat([pool5.mean(dim=(2, 3)), vector3, vector4], dim=1)  # [B, 1280]
        with torch.autocast(
            images.device.type, enabled=False
        ):  # logits in half precision tie, and ties blur an AUC
            logits = self.classifier(self.dropout(features).float())  # [B, classes]
        return Output(logits, map3, map4)


def backbone_weights(weights: str | Path) -> dict[str, Tensor]:
    """The `features.*` entries of a torchvision `vgg16_bn` checkpoint, renamed for `AttnVGG.backbone`, as float32.

    weights: "imagenet" (torchvision's own, downloaded once) or a path. Raises FileNotFoundError, or ConnectionError
    where the download fails, saying what to fetch and set; ValueError if not every `features.*` key is there and fits.
    """
    if weights == "imagenet":
        url = VGG16_BN_Weights.IMAGENET1K_V1.url
        try:
            state = VGG16_BN_Weights.IMAGENET1K_V1.get_state_dict(
                progress=not workspace.headless(), check_hash=True
            )
        except (OSError, RuntimeError) as error:
            raise ConnectionError(
                f"the ImageNet weights could not be downloaded ({error}). Fetch {url} on a machine that can, copy "
                f"{url.rsplit('/', 1)[1]} here and set the parameter `weights` to its path; or set weights='none'"
            ) from error
    else:
        path = workspace.resolve(weights)
        if not path.is_file():
            raise FileNotFoundError(
                f"weights: there is no file {path}; name a torchvision vgg16_bn checkpoint"
            )
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise ValueError(
                f"weights: {path} cannot be read as a torch checkpoint; fetch it again"
            ) from error
    if not isinstance(state, dict):
        raise ValueError(
            f"{weights} is not a torchvision vgg16_bn checkpoint: it holds a {type(state).__name__}"
        )
    expected = make_layers(cfgs["D"], batch_norm=True).state_dict()
    found = {
        key.removeprefix("features."): value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if key.startswith("features.")
    }
    wrong = [
        f"features.{key}"
        for key in expected
        if key not in found or found[key].shape != expected[key].shape
    ]
    wrong += [f"features.{key}" for key in found if key not in expected]
    if wrong:
        raise ValueError(
            f"{weights} is not a torchvision vgg16_bn checkpoint: {len(wrong)} of its features.* keys are "
            f"missing, unknown or of another shape, the first {wrong[0]}"
        )
    return found
