"""The network of notebook 03: VGG16-BN without its dense layers, with two attention blocks.

Written from the equations of Yan, Kawahara and Hamarneh, "Melanoma Recognition via Visual
Attention" (IPMI 2019), which builds on Jetley et al., "Learn to Pay Attention" (ICLR 2018), and on
VGG (Simonyan and Zisserman, 2014).
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

# layers of `vgg16_bn_layers`: the last of block 3 and of block 4, and block 5's last ReLU
POOL3 = 23
POOL4 = 33
LAST_RELU = 42
# torchvision's pooling layers of blocks 1 to 4
POOLS = (6, 13, 23, 33)


NORMALIZATIONS = ("softmax", "sigmoid", "weighted")


class Output(NamedTuple):
    """What `AttnVGG` returns, in float32; maps are None where the network has no attention."""

    logits: Tensor  # [B, classes]
    pool3_map: Tensor | None  # [B, 1, H/8, W/8]
    pool4_map: Tensor | None  # [B, 1, H/16, W/16]


class AttentionBlock(nn.Module):
    """Weigh local features by how well they agree with a guide that has seen the whole image.

    The score of a position is `c = phi(relu(W_l l + up(W_g g)))`, with 1x1 convolutions W_l, W_g
    and phi, and bilinear enlargement up. Scores and maps are computed in float32: in half precision
    hundreds of positions tie.

    Args:
        local_channels: C of the local features l.
        guide_channels: G of the guide g.
        attention_channels: A, in which local features and guide are compared.
        normalization: "softmax": the map is c's softmax over all positions, and the vector its
            weighted sum of the local features (Jetley et al.). "sigmoid": the map is c's sigmoid,
            and the vector the mean of map times local features (Yan et al.). "weighted": the map
            is c's sigmoid, and the vector the local features' mean weighted by it, so that where
            it looks counts, and not how much.

    Example:
        >>> block = AttentionBlock(256, 512)
        >>> weights, vector = block(torch.randn(2, 256, 12, 12), torch.randn(2, 512, 3, 3))
        >>> weights.shape, vector.shape
        (torch.Size([2, 1, 12, 12]), torch.Size([2, 256]))
        >>> torch.allclose(weights.sum(dim=(1, 2, 3)), torch.ones(2))
        True
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
        if normalization not in NORMALIZATIONS:
            known = ", ".join(map(repr, NORMALIZATIONS))
            raise ValueError(f"normalization is one of {known}, not {normalization!r}")
        self.normalization = normalization
        A = attention_channels
        self.local_projection = nn.Conv2d(local_channels, A, kernel_size=1, bias=False)
        self.guide_projection = nn.Conv2d(guide_channels, A, kernel_size=1, bias=False)
        self.score = nn.Conv2d(A, 1, kernel_size=1)
        for layer in (self.local_projection, self.guide_projection, self.score):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.score.bias)

    def forward(self, local: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Local features [B, C, H, W] and guide [B, G, h, w] -> map and vector.

        Returns:
            The map [B, 1, H, W], float32, and the attended vector [B, C].
        """
        B, C, H, W = local.shape
        query = self.guide_projection(guide)  # [B, A, h, w]
        query = functional.interpolate(query, size=(H, W), mode="bilinear", align_corners=False)
        hidden = functional.relu(self.local_projection(local) + query)  # [B, A, H, W]
        with torch.autocast(local.device.type, enabled=False):
            weight = self.score.weight.float().flatten(1)  # [1, A]
            bias = self.score.bias.float()
            # as a product of matrices, for recent GPUs round a convolution's float32 to TF32
            columns = functional.linear(hidden.float().movedim(1, -1), weight, bias)
            scores = columns.movedim(-1, 1)  # [B, 1, H, W]
            if self.normalization == "softmax":
                weights = scores.flatten(1).softmax(dim=1).view(B, 1, H, W)
            else:
                weights = scores.sigmoid()  # [B, 1, H, W]
            vector = (self.shares(weights) * local).sum(dim=(2, 3))  # [B, C]
        return weights, vector

    def shares(self, weights: Tensor) -> Tensor:
        """How much each position of a map counts in the vector: `vector = sum(shares * local)`.

        Args:
            weights: the map, [B, 1, H, W].

        Returns:
            The same shape: the map itself under softmax, which sums to 1; divided by the number of
            positions under sigmoid, and by its own sum where weighted.
        """
        if self.normalization == "softmax":
            return weights
        if self.normalization == "sigmoid":
            return weights / weights[0, 0].numel()
        return weights / weights.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)


class AttnVGG(nn.Module):
    """VGG16-BN whose classifier sees two attended vectors and, unless told not to, pool-5's mean.

    The vectors are those of pool-3 and pool-4, with pool-5 as the guide.

    Args:
        classes: logits of the classifier.
        attention: a normalization of `AttentionBlock`, or "none": the paper's matched control, with
            plain means in place of attended vectors.
        dropout: share of the features that training leaves out.
        weights: of the backbone. None draws them (Kaiming normal), "imagenet" has torchvision
            download its own, else the path of a `vgg16_bn` checkpoint.
        bypass: whether the classifier sees the mean of pool-5 beside the two vectors (1280
            features), or them alone (768): then all that it knows has passed through the maps.

    Raises:
        ValueError: another word for attention; images that are not [B, 3, H, W] with H and W
            multiples of 32.

    Example:
        >>> output = AttnVGG()(torch.randn(2, 3, 64, 96))
        >>> output.logits.shape, output.pool3_map.shape, output.pool4_map.shape
        (torch.Size([2, 1]), torch.Size([2, 1, 8, 12]), torch.Size([2, 1, 4, 6]))
    """

    def __init__(
        self,
        classes: int = 1,
        *,
        attention: str = "softmax",
        dropout: float = 0.0,
        weights: str | Path | None = None,
        bypass: bool = True,
    ):
        super().__init__()
        if attention not in (*NORMALIZATIONS, "none"):
            known = ", ".join(map(repr, NORMALIZATIONS))
            raise ValueError(f"attention is one of {known} or 'none', not {attention!r}")
        self.attention = attention
        self.bypass = bypass
        self.backbone = vgg16_bn_layers()
        if attention != "none":
            self.attention3 = AttentionBlock(256, 512, normalization=attention)
            self.attention4 = AttentionBlock(512, 512, normalization=attention)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(256 + 512 + 512 * bypass, classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        if weights is None:
            self.draw_backbone()
        else:
            self.backbone.load_state_dict(backbone_weights(weights))

    def draw_backbone(self) -> None:
        """Give the backbone's convolutions the start that torchvision gives an untrained VGG."""
        for layer in self.backbone:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Output:
        """Normalised images [B, 3, H, W] -> `Output`."""
        B, C, H, W = images.shape
        if C != 3 or H % 32 or W % 32 or not H or not W:
            raise ValueError(
                f"images are [B, 3, H, W] with H and W multiples of 32, not {list(images.shape)}"
            )
        pool3, pool4, pool5 = self.pools(images)
        if self.attention == "none":
            map3, vector3 = None, pool3.mean(dim=(2, 3))
            map4, vector4 = None, pool4.mean(dim=(2, 3))
        else:
            map3, vector3 = self.attention3(pool3, pool5)
            map4, vector4 = self.attention4(pool4, pool5)
        parts = [vector3, vector4]
        if self.bypass:
            parts = [pool5.mean(dim=(2, 3)), *parts]
        features = torch.cat(parts, dim=1)  # [B, 1280], or [B, 768] without the bypass
        # logits in half precision tie, and ties blur an AUC
        with torch.autocast(images.device.type, enabled=False):
            logits = self.classifier(self.dropout(features).float())  # [B, classes]
        return Output(logits, map3, map4)

    def pools(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pool-3 [B, 256, H/8, W/8], pool-4 [B, 512, H/16, W/16], pool-5 [B, 512, H/32, W/32]."""
        pool3 = self.backbone[: POOL3 + 1](images)
        pool4 = self.backbone[POOL3 + 1 : POOL4 + 1](pool3)
        pool5 = self.backbone[POOL4 + 1 :](pool4)
        return pool3, pool4, pool5


def vgg16_bn_layers() -> nn.Sequential:
    """torchvision's `vgg16_bn().features`, with the same names and numbers but less to do.

    In blocks 1 to 4 the pooling comes before the last ReLU: the maximum of what is above 0 is what
    is above 0 of the maximum, and ReLU has a quarter of the positions left. Outputs and gradients
    are the same to the bit. Block 5 is as it was, for Grad-CAM looks at its last ReLU.
    """
    layers = make_layers(cfgs["D"], batch_norm=True)
    for pool in POOLS:
        layers[pool - 1], layers[pool] = layers[pool], layers[pool - 1]
    return layers


def backbone_weights(weights: str | Path) -> dict[str, Tensor]:
    """The weights of a torchvision `vgg16_bn` checkpoint, named for `AttnVGG.backbone`.

    Args:
        weights: "imagenet" (torchvision's own, downloaded once) or the path of a checkpoint.

    Returns:
        The `features.*` entries without that prefix, as float32.

    Raises:
        FileNotFoundError: there is no such file.
        ConnectionError: the download failed; the message says what to fetch and set.
        ValueError: the file is no such checkpoint, or not every `features.*` key is there and fits.
    """
    state = download_imagenet() if weights == "imagenet" else read_weights(weights)
    if not isinstance(state, dict):
        kind = type(state).__name__
        raise ValueError(f"{weights} is not a torchvision vgg16_bn checkpoint: it holds a {kind}")
    expected = make_layers(cfgs["D"], batch_norm=True).state_dict()
    found = {}
    for key, value in state.items():
        if key.startswith("features."):
            value = value.float() if value.is_floating_point() else value
            found[key.removeprefix("features.")] = value
    wrong = []
    for key in {**expected, **found}:
        fits = key in expected and key in found and found[key].shape == expected[key].shape
        if not fits:
            wrong.append(f"features.{key}")
    if wrong:
        raise ValueError(
            f"{weights} is not a torchvision vgg16_bn checkpoint: {len(wrong)} of its features.* "
            f"keys are missing, unknown or of another shape, the first {wrong[0]}"
        )
    return found


def download_imagenet() -> dict[str, Tensor]:
    """torchvision's own ImageNet weights, downloaded once. Raises ConnectionError."""
    weights = VGG16_BN_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=not workspace.headless(), check_hash=True)
    except (OSError, RuntimeError) as error:
        name = weights.url.rsplit("/", 1)[1]
        raise ConnectionError(
            f"the ImageNet weights could not be downloaded ({error}). Fetch {weights.url} on a "
            f"machine that can, copy {name} here and set the parameter `weights` to its path; or "
            "set weights='none'"
        ) from error


def read_weights(weights: str | Path) -> object:
    """What a file of weights holds; no pickled code is run."""
    path = workspace.resolve(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"weights: there is no file {path}; name a torchvision vgg16_bn checkpoint"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"weights: {path} cannot be read as a torch checkpoint; fetch it again"
        ) from error
