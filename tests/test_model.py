"""Attention block and network, against loops in plain Python and torchvision's own vgg16_bn."""

import copy
import functools
import math
import socket

import pytest
import torch
from torch.nn import functional
from torchvision.models import VGG16_BN_Weights
from torchvision.models.vgg import cfgs, make_layers, vgg16_bn

from helpers.model import LAST_RELU, AttentionBlock, AttnVGG, backbone_weights

KINDS = ["softmax", "sigmoid", "weighted"]
SIZES = [(1, 4, 6, 2, 3), (2, 5, 3, 2, 2), (1, 4, 4, 1, 1), (1, 3, 5, 3, 5)]  # B, H, W, h, w


def small_block(kind: str) -> AttentionBlock:
    torch.manual_seed(0)
    block = AttentionBlock(3, 5, attention_channels=4, normalization=kind)
    torch.nn.init.normal_(block.score.bias)
    return block


def corner(position: int, size: int, source: int) -> tuple[int, int, float]:
    """Where bilinear enlargement takes position 0 to size - 1 from: the two source positions and
    the second's share.
    """
    place = max((position + 0.5) * source / size - 0.5, 0.0)
    low = min(int(place), source - 1)
    return low, min(low + 1, source - 1), place - low


def plain_block(block: AttentionBlock, local: list, guide: list, kind: str) -> tuple[list, list]:
    """The equations for one image, one position after the other: map [H][W] and vector [C] from
    nested lists.
    """
    W_l, W_g = (
        layer.weight.flatten(1).tolist()
        for layer in (block.local_projection, block.guide_projection)
    )
    phi, bias = block.score.weight.flatten().tolist(), block.score.bias.item()
    H, W, h, w = len(local[0]), len(local[0][0]), len(guide[0]), len(guide[0][0])
    projected = [
        [
            [sum(row[g] * guide[g][y][x] for g in range(len(guide))) for x in range(w)]
            for y in range(h)
        ]
        for row in W_g
    ]  # [A][h][w]
    scores = [[bias] * W for _ in range(H)]
    for y in range(H):
        top, bottom, down = corner(y, H, h)
        for x in range(W):
            left, right, across = corner(x, W, w)
            for a, grid in enumerate(projected):
                upper = grid[top][left] * (1 - across) + grid[top][right] * across
                lower = grid[bottom][left] * (1 - across) + grid[bottom][right] * across
                hidden = (
                    upper * (1 - down)
                    + lower * down
                    + sum(W_l[a][c] * local[c][y][x] for c in range(len(local)))
                )
                scores[y][x] += phi[a] * max(hidden, 0.0)
    if kind == "softmax":
        total, count = sum(math.exp(score) for line in scores for score in line), 1
        weights = [[math.exp(score) / total for score in line] for line in scores]
    else:
        weights, count = [[1 / (1 + math.exp(-score)) for score in line] for line in scores], H * W
        if kind == "weighted":
            count = sum(sum(line) for line in weights)
    vector = [
        sum(weights[y][x] * channel[y][x] for y in range(H) for x in range(W)) / count
        for channel in local
    ]
    return weights, vector


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("B, H, W, h, w", SIZES)
def test_the_block_equals_loops_over_positions(kind, B, H, W, h, w):
    block = small_block(kind)
    local, guide = torch.randn(B, 3, H, W), torch.randn(B, 5, h, w)
    grid, vector = block(local, guide)
    assert grid.shape == (B, 1, H, W) and vector.shape == (B, 3)
    for image in range(B):
        weights, expected = plain_block(block, local[image].tolist(), guide[image].tolist(), kind)
        torch.testing.assert_close(grid[image, 0], torch.tensor(weights), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(vector[image], torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_a_softmax_map_sums_to_one_and_a_sigmoid_map_lies_between_0_and_1():
    local, guide = 3 * torch.randn(4, 3, 7, 5), torch.randn(4, 5, 3, 2)
    softmax, _ = small_block("softmax")(local, guide)
    sigmoid, _ = small_block("sigmoid")(local, guide)
    torch.testing.assert_close(softmax.sum(dim=(1, 2, 3)), torch.ones(4))
    assert (softmax >= 0).all()
    assert ((sigmoid > 0) & (sigmoid < 1)).all() and (sigmoid.sum(dim=(1, 2, 3)) > 2).all()


def test_equal_scores_give_the_mean():
    local, guide = torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)
    raised = torch.sigmoid(torch.tensor(0.7)).item()
    for kind, factor in (("softmax", 1.0), ("sigmoid", raised), ("weighted", 1.0)):
        block = small_block(kind)
        torch.nn.init.zeros_(block.score.weight)
        torch.nn.init.constant_(block.score.bias, 0.7)
        torch.testing.assert_close(block(local, guide)[1], factor * local.mean(dim=(2, 3)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change", [lambda x: x.flip(3), lambda x: x.flip(2), lambda x: x.rot90(1, (2, 3))]
)
def test_turning_the_features_turns_the_map_and_keeps_the_vector(kind, change):
    block, local, guide = small_block(kind), torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)
    grid, vector = block(local, guide)
    turned, same = block(change(local), change(guide))
    torch.testing.assert_close(turned, change(grid))
    torch.testing.assert_close(same, vector)
    assert not torch.allclose(turned.flatten(1), grid.flatten(1))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_inputs_and_every_projection(kind):
    block, local = small_block(kind), torch.randn(2, 3, 4, 6, requires_grad=True)
    guide = torch.randn(2, 5, 2, 3, requires_grad=True)
    block(local, guide)[1].square().sum().backward()
    layers = (block.local_projection, block.guide_projection, block.score)
    for tensor in (local, guide, *(layer.weight for layer in layers)):
        assert tensor.grad.abs().max() > 1e-6
    assert (block.score.bias.grad.abs().item() > 1e-6) == (
        kind != "softmax"
    )  # softmax does not see a constant


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="'softmax', 'sigmoid', 'weighted', not 'none'"):
        AttentionBlock(3, 5, normalization="none")


# the network


@pytest.fixture(scope="module")
def vgg():
    """torchvision's vgg16_bn features with random weights and random batch statistics, so that
    every number counts.
    """
    torch.manual_seed(1)
    features = make_layers(cfgs["D"], batch_norm=True)
    for layer in features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(layer.weight, 0.8, 1.2)
    return features.eval()


@functools.cache
def built(kind: str, bypass: bool = True) -> AttnVGG:
    """A network as it starts; to be copied: drawing its weights takes longer than most tests."""
    torch.manual_seed(2)
    return AttnVGG(attention=kind, bypass=bypass)


def network_of(vgg, kind: str, bypass: bool = True) -> AttnVGG:
    torch.manual_seed(3)
    network = copy.deepcopy(built(kind, bypass)).eval()
    network.backbone.load_state_dict(vgg.state_dict())
    torch.nn.init.normal_(network.classifier.weight)
    torch.nn.init.normal_(network.classifier.bias)
    return network


def pools(vgg, images: torch.Tensor) -> list[torch.Tensor]:
    """What torchvision's five poolings leave, found by their type."""
    found = []
    for layer in vgg:
        images = layer(images)
        if isinstance(layer, torch.nn.MaxPool2d):
            found.append(images)
    return found


@pytest.mark.parametrize("H, W", [(64, 96), (32, 32)])
@torch.no_grad()
def test_without_attention_the_classifier_sees_plain_means_of_torchvisions_features(H, W, vgg):
    images, network = torch.randn(1, 3, H, W), network_of(vgg, "none")
    _, _, pool3, pool4, pool5 = pools(vgg, images)
    means = torch.cat(
        [pool.flatten(2).mean(dim=2) for pool in (pool5, pool3, pool4)], dim=1
    )  # 512 + 256 + 512
    logits, map3, map4 = network(images)
    torch.testing.assert_close(
        logits,
        functional.linear(means, network.classifier.weight, network.classifier.bias),
        rtol=1e-3,
        atol=1e-3,
    )
    assert map3 is None and map4 is None


@pytest.mark.parametrize("training", [False, True])
def test_pooling_before_relu_gives_torchvisions_values_and_gradients_to_the_bit(training, vgg):
    images = torch.randn(3, 3, 64, 32)
    theirs = copy.deepcopy(vgg).train(training)
    ours = network_of(vgg, "none").backbone.train(training)
    outputs = [layers(images) for layers in (theirs, ours)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    parameters = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter.grad, parameters[name].grad), name


def test_scores_are_a_product_of_matrices_which_no_gpu_rounds(monkeypatch):
    """`torch.backends.cudnn.allow_tf32` is True as PyTorch comes, and holds for convolutions."""
    block, convolution = small_block("softmax"), functional.conv2d
    seen = []
    monkeypatch.setattr(
        torch.nn.functional, "conv2d", lambda *given: seen.append(given) or convolution(*given)
    )
    block(torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3))
    assert all(weight.shape[0] > 1 for _, weight, *_ in seen), "a score is no convolution"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_network_joins_torchvisions_features_and_its_two_blocks(kind, vgg):
    images, network = torch.randn(2, 3, 64, 96), network_of(vgg, kind)
    _, _, pool3, pool4, pool5 = pools(vgg, images)
    map3, vector3 = network.attention3(pool3, pool5)
    map4, vector4 = network.attention4(pool4, pool5)
    output = network(images)
    torch.testing.assert_close(output.pool3_map, map3)
    torch.testing.assert_close(output.pool4_map, map4)
    joined = torch.cat([pool5.flatten(2).mean(dim=2), vector3, vector4], dim=1)
    expected = functional.linear(joined, network.classifier.weight, network.classifier.bias)
    torch.testing.assert_close(output.logits, expected, rtol=1e-3, atol=1e-3)
    assert network.attention3.normalization == network.attention4.normalization == kind


@pytest.mark.parametrize("kind", [*KINDS, "none"])
@torch.no_grad()
def test_without_the_bypass_the_classifier_sees_the_two_vectors_alone(kind, vgg):
    images = torch.randn(2, 3, 64, 96)
    network = network_of(vgg, kind, bypass=False)
    _, _, pool3, pool4, pool5 = pools(vgg, images)
    vectors = [pool3.mean(dim=(2, 3)), pool4.mean(dim=(2, 3))]
    if kind != "none":
        vectors = [network.attention3(pool3, pool5)[1], network.attention4(pool4, pool5)[1]]
    expected = network.classifier(torch.cat(vectors, dim=1))
    torch.testing.assert_close(network(images).logits, expected, rtol=1e-3, atol=1e-3)
    assert network.classifier.weight.shape == (1, 768)


@torch.no_grad()
def test_a_weighted_vector_does_not_depend_on_how_high_the_map_is():
    block = small_block("weighted")
    weights, local = torch.rand(2, 1, 4, 6), torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(block.shares(weights), block.shares(weights / 50))
    block.score.bias.fill_(-1000.0)  # a map that is 0 everywhere has no place, and no NaN
    assert torch.isfinite(block(local, torch.randn(2, 5, 2, 3))[1]).all()


@torch.no_grad()
def test_softmax_with_equal_scores_is_the_network_without_attention(vgg):
    images, attended, plain = (
        torch.randn(2, 3, 64, 32),
        network_of(vgg, "softmax"),
        network_of(vgg, "none"),
    )
    plain.classifier.load_state_dict(attended.classifier.state_dict())
    torch.nn.init.zeros_(attended.attention3.score.weight)
    torch.nn.init.zeros_(attended.attention4.score.weight)
    torch.testing.assert_close(attended(images).logits, plain(images).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("B, H, W", [(1, 64, 96), (3, 96, 64), (2, 32, 32)])
@torch.no_grad()
def test_shapes(kind, B, H, W):
    logits, map3, map4 = copy.deepcopy(built(kind)).eval()(torch.randn(B, 3, H, W))
    assert logits.shape == (B, 1)
    assert map3.shape == (B, 1, H // 8, W // 8) and map4.shape == (B, 1, H // 16, W // 16)
    if kind == "softmax":
        torch.testing.assert_close(map3.sum(dim=(1, 2, 3)), torch.ones(B))
        torch.testing.assert_close(map4.sum(dim=(1, 2, 3)), torch.ones(B))


@torch.no_grad()
def test_two_classes_have_two_logits():
    assert AttnVGG(2).eval()(torch.randn(1, 3, 64, 32)).logits.shape == (1, 2)


@torch.no_grad()
def test_an_image_does_not_depend_on_the_rest_of_its_batch(vgg):
    images, network = torch.randn(3, 3, 64, 32), network_of(vgg, "softmax")
    whole, alone = network(images), network(images[1:2])
    for one, two in zip(whole, alone, strict=True):
        torch.testing.assert_close(one[1:2], two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 65), (1, 3, 48, 64), (1, 1, 64, 64), (1, 4, 64, 64), (1, 3, 0, 64)]
)
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 32"):
        built("none")(torch.zeros(shape))


def test_an_unknown_attention_is_refused():
    with pytest.raises(ValueError, match="'softmax', 'sigmoid', 'weighted' or 'none', not 'relu'"):
        AttnVGG(attention="relu")


def test_parameters_and_names():
    with torch.device("meta"):  # shapes without numbers
        torchvisions, networks = (
            vgg16_bn(weights=None),
            {kind: AttnVGG(attention=kind) for kind in [*KINDS, "none"]},
        )
    names = {f"backbone.{name}" for name in torchvisions.features.state_dict()}
    blocks = {
        f"attention{number}.{name}"
        for number in (3, 4)
        for name in (
            "local_projection.weight",
            "guide_projection.weight",
            "score.weight",
            "score.bias",
        )
    }
    head = {"classifier.weight", "classifier.bias"}
    for kind in KINDS:
        assert set(networks[kind].state_dict()) == names | blocks | head
        assert sum(parameter.numel() for parameter in networks[kind].parameters()) == 15_183_683
    assert (
        type(torchvisions.features[LAST_RELU]) is torch.nn.ReLU
        and len(torchvisions.features) == LAST_RELU + 2
    )
    assert set(networks["none"].state_dict()) == names | head
    kinds = [type(layer) for layer in networks["none"].backbone]
    poolings = [number for number, kind in enumerate(kinds) if kind is torch.nn.MaxPool2d]
    assert poolings == [5, 12, 22, 32, 43], "before the last ReLU, but for block 5"
    assert kinds[LAST_RELU] is torch.nn.ReLU
    assert sum(parameter.numel() for parameter in torchvisions.parameters()) == 138_365_992


def test_the_start_is_the_papers():
    network = built("softmax")
    for block, channels in ((network.attention3, 256), (network.attention4, 512)):
        assert block.local_projection.weight.std().item() == pytest.approx(
            (2 / channels) ** 0.5, rel=0.03
        )
        assert block.guide_projection.weight.std().item() == pytest.approx(
            (2 / 512) ** 0.5, rel=0.03
        )
        assert block.score.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.2)
        assert block.score.bias.item() == 0
        assert block.local_projection.bias is None and block.guide_projection.bias is None
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert network.classifier.bias.item() == 0
    for layer in network.backbone:
        if isinstance(layer, torch.nn.Conv2d):
            spread = (2 / (9 * layer.out_channels)) ** 0.5  # fan_out, as torchvision
            assert (
                layer.weight.std().item() == pytest.approx(spread, rel=0.1) and not layer.bias.any()
            )


@pytest.mark.parametrize("kind", KINDS)
def test_maps_and_logits_stay_float32_where_the_rest_runs_in_bfloat16(kind, vgg):
    images, network = torch.randn(2, 3, 64, 64), network_of(vgg, kind)
    seen = []
    network.attention3.register_forward_hook(
        lambda module, inputs, output: seen.extend([inputs[0], *output])
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(images)
    assert seen[0].dtype == torch.bfloat16  # the backbone did run in it
    assert {tensor.dtype for tensor in (*seen[1:], *output)} == {torch.float32}
    for grid in output[1:]:
        rounded = grid.bfloat16().float()
        assert (grid != rounded).any()  # computed in float32, not cast to it
        if kind == "softmax":
            torch.testing.assert_close(grid.sum(dim=(1, 2, 3)), torch.ones(2), rtol=1e-5, atol=1e-5)
    assert (output.logits != output.logits.bfloat16().float()).any()


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_gradients_reach_every_weight(kind):
    torch.manual_seed(0)
    network = copy.deepcopy(built(kind)).train()
    network(torch.randn(2, 3, 32, 64)).logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["pool3_map", "pool4_map"])
def test_a_map_trains_the_guides_layers(kind, name):
    torch.manual_seed(0)
    network = copy.deepcopy(built(kind)).eval()
    getattr(network(torch.randn(1, 3, 64, 64)), name).square().sum().backward()
    assert (
        network.backbone[40].weight.grad.abs().max() > 0
    )  # behind pool-4: reached through the guide alone


def test_dropout_is_in_front_of_the_classifier_and_in_training_alone():
    images, network = torch.randn(2, 3, 32, 32), AttnVGG(dropout=1.0)
    torch.nn.init.constant_(network.classifier.bias, 0.3)
    assert (network.train()(images).logits == network.classifier.bias).all()
    assert (network.eval()(images).logits != network.classifier.bias).all()


# weights


def save(vgg, path, *, without=(), changed=None):
    """Write a torchvision-like checkpoint, dense layers included, less some keys and with others
    changed.
    """
    state = {
        f"features.{name}": value
        for name, value in vgg.state_dict().items()
        if f"features.{name}" not in without
    }
    torch.save({**state, "classifier.0.weight": torch.zeros(2, 2), **(changed or {})}, path)
    return path


def test_a_checkpoint_is_loaded_whole(vgg, tmp_path):
    network = AttnVGG(weights=save(vgg, tmp_path / "vgg.pth"))
    for name, value in vgg.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[name], value)
    assert network.classifier.weight.std() < 0.02


def test_half_precision_becomes_float32(vgg, tmp_path):
    halves = {
        f"features.{name}": value.half()
        for name, value in vgg.state_dict().items()
        if value.is_floating_point()
    }
    found = backbone_weights(save(vgg, tmp_path / "vgg.pth", changed=halves))
    assert {value.dtype for name, value in found.items() if not name.endswith("tracked")} == {
        torch.float32
    }


@pytest.mark.parametrize(
    "without, changed, first",
    [
        (["features.40.weight"], {}, "1 of its features.* keys .* features.40.weight"),
        (["features.1.running_mean", "features.3.bias"], {}, "2 of its features.* keys"),
        (
            [],
            {"features.0.weight": torch.zeros(64, 1, 3, 3)},
            "1 of its features.* keys .* features.0.weight",
        ),
        (
            [],
            {"features.44.weight": torch.zeros(3)},
            "1 of its features.* keys .* features.44.weight",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(without, changed, first, vgg, tmp_path):
    with pytest.raises(ValueError, match=f"not a torchvision vgg16_bn checkpoint: {first}"):
        backbone_weights(save(vgg, tmp_path / "vgg.pth", without=without, changed=changed))


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="weights: there is no file .*absent.pth"):
        AttnVGG(weights=tmp_path / "absent.pth")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="page.pth cannot be read as a torch checkpoint"):
        AttnVGG(weights=tmp_path / "page.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match="it holds a Tensor"):
        AttnVGG(weights=tmp_path / "tensor.pth")
    torch.save({"state_dict": {}, "config": {}}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="first features.0.weight"):
        AttnVGG(weights=tmp_path / "model.pt")


def test_imagenet_without_a_network_names_the_file_and_the_parameter(monkeypatch, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]  # closed again below: nobody answers there
    name = VGG16_BN_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    monkeypatch.setattr(
        VGG16_BN_Weights.IMAGENET1K_V1.value, "url", f"http://127.0.0.1:{port}/{name}"
    )
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        ConnectionError,
        match=f"{port}/vgg16_bn-.*copy {name} here and set the parameter `weights` to "
        "its path; or set weights='none'",
    ):
        AttnVGG(weights="imagenet")
    assert not list(tmp_path.rglob("*.pth"))


def test_the_stand_in_weights_load(real_data):
    path = real_data / "vgg16_bn-features-fp16.pth"
    backbone = AttnVGG(weights=path).backbone.state_dict()
    stored = torch.load(path, weights_only=True)
    assert {f"features.{name}" for name in backbone} == {
        name for name in stored if name.startswith("features.")
    }
    for name, value in backbone.items():
        assert torch.equal(value, stored[f"features.{name}"].to(value.dtype))
        assert value.dtype == (
            torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        )
