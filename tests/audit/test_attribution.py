"""helpers/audit/attribution.py against hand work, plain loops, and what the methods promise."""

import ast
import warnings

import nbformat
import numpy as np
import pytest
import torch
from torch.nn import functional

from helpers import workspace
from helpers.audit import attribution, localisation
from helpers.model import LAST_RELU, POOL3, POOL4, AttnVGG, Output
from helpers.pictures.maps import headings
from helpers.scores import metrics


def straddling(attention: str) -> tuple[AttnVGG, torch.Tensor]:
    """A network and images [3, 3, 64, 96], some of which it calls melanoma and some benign."""
    torch.manual_seed(3)
    network, images = AttnVGG(attention=attention).eval(), torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        network.classifier.weight.mul_(20)
        network.classifier.bias -= network(images).logits.median()
        network.classifier.bias += 1e-3
        signs = network(images).logits[:, 0] > 0
    assert signs.any() and not signs.all()
    return network, images


@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "none"])
def test_grad_cam_equals_a_computation_by_hand(attention):
    network, images = straddling(attention)
    expected = []
    for image in images[:, None]:  # one by one: [1, 3, H, W]
        with torch.no_grad():
            pool3 = network.backbone[: POOL3 + 1](image)
            pool4 = network.backbone[POOL3 + 1 : POOL4 + 1](pool3)
            block5 = network.backbone[POOL4 + 1 : LAST_RELU + 1](pool4)  # [1, 512, 4, 6]
        block5.requires_grad_()
        pool5 = functional.max_pool2d(block5, 2)
        if attention == "none":
            vectors = [pool3.mean(dim=(2, 3)), pool4.mean(dim=(2, 3))]
        else:
            vectors = [network.attention3(pool3, pool5)[1], network.attention4(pool4, pool5)[1]]
        logit = network.classifier(torch.cat([pool5.mean(dim=(2, 3)), *vectors], dim=1)).squeeze()
        gradient = torch.autograd.grad(logit if logit > 0 else -logit, block5)[0]
        expected.append(
            (gradient.mean(dim=(2, 3), keepdim=True) * block5)
            .sum(dim=1, keepdim=True)
            .relu()
            .detach()
        )
    found, output = attribution.grad_cam(network, images)
    assert (
        found.shape == (3, 1, 4, 6) and not found.requires_grad and not output.logits.requires_grad
    )
    assert (found.flatten(1).amax(dim=1) > 0).all()
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-3, atol=1e-7)
    assert all(
        parameter.grad is None and parameter.requires_grad for parameter in network.parameters()
    )


def test_grad_cam_without_attention_has_a_closed_form():
    # each 2x2 window passes the classifier's weight / windows to one place: on average
    # w / (windows * 4) = w / places
    network, images = straddling("none")
    with torch.no_grad():
        block5 = network.backbone[: LAST_RELU + 1](images)  # [3, 512, 4, 6]
        sign = torch.where(network(images).logits > 0, 1.0, -1.0)[:, :, None, None]
    weights = network.classifier.weight[0, :512].detach().view(1, 512, 1, 1)
    expected = (sign * (weights * block5).sum(dim=1, keepdim=True) / 24).relu()
    torch.testing.assert_close(
        attribution.grad_cam(network, images)[0], expected, rtol=1e-3, atol=1e-7
    )


def test_the_output_beside_grad_cam_is_that_of_the_network_in_evaluation_mode():
    network, images = straddling("softmax")
    network.train()
    found = attribution.grad_cam(network, images[:1])[1]
    assert not network.training
    assert not attribution.logit_of(network, [])(images[:1]).requires_grad, (
        "no graph for the weights"
    )
    with torch.no_grad():
        torch.testing.assert_close(tuple(found), tuple(network(images[:1])))


@pytest.mark.parametrize(
    "method", [attribution.grad_cam, attribution.integrated_gradients, attribution.occlusion]
)
def test_several_logits_are_refused(method):
    with pytest.raises(ValueError, match=r"\b2\b"):
        method(AttnVGG(2), torch.randn(1, 3, 32, 32))


class Small(torch.nn.Module):
    """What `AttnVGG` promises, small enough to do by hand: one convolution, a head, one logit."""

    def __init__(self, *, linear: bool):
        super().__init__()
        torch.manual_seed(5)
        self.convolution, self.linear = torch.nn.Conv2d(3, 4, 5, stride=4, padding=2), linear
        self.head = torch.nn.Linear(4, 1)

    def forward(self, images: torch.Tensor) -> Output:
        features = self.convolution(images)
        features = features if self.linear else functional.softplus(4 * features)
        return Output(50 * self.head(features.mean(dim=(2, 3))), None, None)


def both_calls(network: torch.nn.Module) -> torch.Tensor:
    """Images [6, 3, 48, 64] that the network calls melanoma and benign."""
    images = torch.randn(6, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    images += torch.arange(-2.0, 4).view(-1, 1, 1, 1)
    with torch.no_grad():
        network.head.bias -= network(images).logits.median() / 50
        network.head.bias += 1e-3
        signs = network(images).logits[:, 0] > 0
    assert signs.any() and not signs.all()
    return images


@pytest.mark.parametrize("linear", [True, False])
def test_integrated_gradients_are_complete(linear):
    """All parts sum to the called class's score for the photograph less that for the baseline."""
    network = Small(linear=linear)
    images = both_calls(network)
    with torch.no_grad():
        logits, baseline = network(images).logits, network(torch.zeros(1, 3, 48, 64)).logits
    sign = torch.where(logits > 0, 1.0, -1.0)
    found = attribution.integrated_gradients(network, images)
    assert found.shape == (6, 1, 3, 4) and not found.requires_grad
    torch.testing.assert_close(
        found.sum(dim=(1, 2, 3)), (sign * (logits - baseline)).squeeze(1), rtol=1e-3, atol=1e-3
    )
    assert (found < 0).any(), "signed"


def test_integrated_gradients_of_a_linear_network_are_weight_times_pixel():
    network = Small(linear=True)
    images = both_calls(network)
    pixels = images.clone().requires_grad_()
    logits = network(pixels).logits
    weights = torch.autograd.grad(logits.sum(), pixels)[0]  # the same for all
    for number, image in enumerate(images):
        part = (weights[number] * image).sum(dim=0) * (1 if logits[number] > 0 else -1)  # [H, W]
        expected = [
            [part[y : y + 16, x : x + 16].sum().item() for x in range(0, 64, 16)]
            for y in range(0, 48, 16)
        ]
        found = attribution.integrated_gradients(network, images[number : number + 1])[0, 0]
        torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-3, atol=1e-4)


def test_integrated_gradients_of_the_real_network_come_near_completeness_with_more_steps():
    network, images = straddling("softmax")
    with torch.no_grad():
        # as it starts, it is linear along the path from 0: any number of steps is exact
        for layer in network.backbone:
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.bias.normal_(std=0.3)
        images = images[:1, :, :, :64]
        logits, baseline = network(images).logits, network(torch.zeros(1, 3, 64, 64)).logits
    wanted = torch.where(logits > 0, 1.0, -1.0) * (logits - baseline)
    sums = [
        attribution.integrated_gradients(network, images, steps=steps).sum(dim=(1, 2, 3))
        for steps in (2, 32)
    ]
    gaps = [(parts - wanted[:, 0]).abs().mean() for parts in sums]
    assert gaps[1] < gaps[0] / 2 and gaps[1] < 0.1 * wanted.abs().mean()


@pytest.mark.parametrize("linear", [True, False])
def test_occlusion_equals_a_plain_loop(linear):
    network = Small(linear=linear)
    images = both_calls(network)
    found = attribution.occlusion(network, images)
    assert found.shape == (6, 1, 3, 4) and not found.requires_grad
    for number in range(6):
        image, sums, times = images[number : number + 1], torch.zeros(3, 4), torch.zeros(3, 4)
        with torch.no_grad():
            whole = network(image).logits.item()
            for row in range(2):  # squares of 2 x 2 cells
                for column in range(3):
                    hidden = image.clone()
                    hidden[:, :, 16 * row : 16 * row + 32, 16 * column : 16 * column + 32] = 0
                    fall = (1 if whole > 0 else -1) * (whole - network(hidden).logits.item())
                    sums[row : row + 2, column : column + 2] += fall
                    times[row : row + 2, column : column + 2] += 1
        torch.testing.assert_close(found[number, 0], sums / times, rtol=1e-3, atol=1e-3)


def test_all_methods_explain_the_called_class():
    """Of a network that answers by one corner's colour, what raises its score lies there."""

    class Corner(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> Output:
            return Output(images[:, :1, :16, :16].mean(dim=(2, 3)), None, None)

    for sign in (1, -1):
        images = sign * torch.ones(1, 3, 64, 64)
        for method in (attribution.integrated_gradients, attribution.occlusion):
            found = method(Corner(), images).relu()[0, 0]
            assert found[0, 0] > 0 and found[2:].sum() == found[:, 2:].sum() == 0, (method, sign)


def test_posthoc_maps_have_one_resolution_and_no_warning():
    network, images = straddling("sigmoid")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = attribution.posthoc(network, images, batch_size=2)
    assert list(found) == ["grad_cam", "integrated_gradients", "occlusion"]
    for maps in found.values():
        assert maps.shape == (3, 1, 4, 6) and (maps >= 0).all() and not maps.requires_grad
    torch.testing.assert_close(
        found["grad_cam"], attribution.grad_cam(network, images)[0], rtol=1e-4, atol=1e-7
    )
    assert all(
        parameter.grad is None and parameter.requires_grad for parameter in network.parameters()
    )


def test_the_bars_of_the_slow_methods_count_each_pass(monkeypatch):
    """A bar that is not full stays in a notebook, in red."""
    bars = []
    progress = workspace.progress

    def kept(*arguments, **options):
        bars.append(progress(*arguments, **options))
        return bars[-1]

    monkeypatch.setenv("ATTENTION_HEADLESS", "0")
    monkeypatch.setattr(workspace, "progress", kept)
    network, images = straddling("softmax")
    attribution.integrated_gradients(network, images, steps=5)
    attribution.occlusion(network, images)
    _, _, H, W = images.shape
    assert [bar.total for bar in bars] == [5, 1 + (H // 16 - 1) * (W // 16 - 1)]
    assert all(bar.n == bar.total for bar in bars)


def test_the_logit_of_the_threshold_has_the_threshold_as_its_probability():
    for slope, intercept, threshold in ((2.5, -0.6, 0.15), (0.3, 4.0, 0.9), (1.0, 0.0, 0.5)):
        calibration = {"slope": slope, "intercept": intercept}
        config = {"calibration": calibration, "threshold": threshold}
        at = attribution.logit_threshold(config)
        assert metrics.probability([at], calibration)[0] == pytest.approx(threshold, abs=1e-12)
        assert metrics.probability([at - 0.1], calibration)[0] < threshold


@pytest.mark.parametrize("config", [{}, {"threshold": 0.2}, {"threshold": None, "mean": (0, 0, 0)}])
def test_a_config_without_a_decision_has_its_threshold_at_0(config):
    assert attribution.logit_threshold(config) == 0.0


@pytest.mark.parametrize("threshold, side", [(0.25, 1), (0.5, -1)])
def test_where_logits_say_nothing_all_photographs_are_on_one_side(threshold, side):
    """The slope is 0 and the probability that of a prevalence of 0.25, whatever the logit."""
    calibration = {"slope": 0.0, "intercept": float(-np.log(3))}
    config = {"calibration": calibration, "threshold": threshold - 1e-9}
    at = attribution.logit_threshold(config)
    logits = torch.tensor([[-30.0], [0.0], [30.0]])
    assert attribution.side(logits, at).flatten().tolist() == 3 * [side]
    called = metrics.probability(logits[:, 0], calibration) >= config["threshold"]
    assert called.all() if side == 1 else not called.any()


@pytest.mark.parametrize(
    "slope, threshold, word", [(-1.0, 0.5, "slope is -1.0"), (1.0, 1.2, "threshold is 1.2")]
)
def test_a_config_that_cannot_be_is_refused(slope, threshold, word):
    config = {"calibration": {"slope": slope, "intercept": 0.0}, "threshold": threshold}
    with pytest.raises(ValueError, match=word):
        attribution.logit_threshold(config)


def test_the_photograph_that_gave_the_threshold_is_on_the_same_side_in_map_and_heading():
    """04 takes the threshold from a photograph: its own probability, so that rounding decides."""
    generator = torch.Generator().manual_seed(0)
    for logit in torch.randn(200, 1, 1, generator=generator):
        slope, intercept = (2 * torch.rand(2, generator=generator) + 0.1).tolist()
        calibration = {"slope": slope, "intercept": intercept}
        (probability,) = metrics.probability(logit[:, 0], calibration)
        config = {"calibration": calibration, "threshold": probability}
        at = attribution.logit_threshold(config)
        assert attribution.side(logit, at).item() == 1
        assert headings([1], [probability], config["threshold"])[0].endswith("found")


@pytest.fixture
def between():
    """A network, an image [1, 3, 64, 96] whose logit lies between the threshold and 0, and config.

    It is called melanoma: its probability is more than the threshold, though its logit is below 0.
    """
    network, images = straddling("softmax")
    with torch.no_grad():
        network.classifier.bias -= network(images[:1]).logits[0] + 0.2
        logit = network(images[:1]).logits.item()
    calibration = {"slope": 2.0, "intercept": 0.1}
    config = {
        "calibration": calibration,
        "threshold": float(metrics.probability([-0.4], calibration)[0]),
    }
    at = attribution.logit_threshold(config)
    assert at == pytest.approx(-0.4) and at < logit < 0
    return network, images[:1], config


def test_heading_and_map_are_about_the_same_call(between):
    network, image, config = between
    at = attribution.logit_threshold(config)
    found, output = attribution.grad_cam(network, image, threshold=at)
    probabilities = metrics.probability(output.logits[:, 0], config["calibration"])
    (title,) = headings([1], probabilities, config["threshold"])
    assert title.endswith("found"), "it is called melanoma"
    # what raises the logit, by hand
    kept = []
    handle = network.backbone[LAST_RELU].register_forward_hook(lambda *given: kept.append(given[2]))
    logit = network(image).logits.sum()
    handle.remove()
    gradient = torch.autograd.grad(logit, kept[0])[0]
    raises = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1, keepdim=True).detach()
    assert (raises > 0).any() and (raises < 0).any()
    torch.testing.assert_close(found, raises.relu(), rtol=1e-3, atol=1e-7)
    # going by the logit's own sign, the map said what speaks for benign below the word "found"
    before, _ = attribution.grad_cam(network, image)
    torch.testing.assert_close(before, (-raises).relu(), rtol=1e-3, atol=1e-7)
    assert not ((before > 0) & (found > 0)).any()


def test_every_method_takes_the_call_from_the_threshold(between):
    network, image, config = between
    at = attribution.logit_threshold(config)
    for method in (attribution.integrated_gradients, attribution.occlusion):
        torch.testing.assert_close(method(network, image, threshold=at), -method(network, image))
    found = attribution.posthoc(network, image, threshold=at)
    expected = {
        "grad_cam": attribution.grad_cam(network, image, threshold=at)[0],
        "integrated_gradients": attribution.integrated_gradients(network, image, threshold=at),
        "occlusion": attribution.occlusion(network, image, threshold=at),
    }
    for name, maps in expected.items():
        torch.testing.assert_close(found[name], maps.relu())
    located = localisation.maps_of(network, image, threshold=at)
    torch.testing.assert_close(located["grad_cam"], expected["grad_cam"])
    assert attribution.called(network, image, at).item() == 1
    assert attribution.called(network, image).item() == -1


TAKES_A_THRESHOLD = {
    "attribution.grad_cam",
    "attribution.integrated_gradients",
    "attribution.occlusion",
    "attribution.posthoc",
    "evidence.contribution_maps",
    "evidence.curves",
    "evidence.turned",
    "localisation.maps_of",
}


def test_no_notebook_of_the_series_explains_another_call_than_was_made():
    """Left out, the threshold would be a logit of 0; each call of these functions hands it over."""
    calls = []
    for path in sorted((workspace.PROJECT / "notebooks").glob("0*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type != "code":
                continue
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in TAKES_A_THRESHOLD:
                    given = {keyword.arg for keyword in node.keywords}
                    calls.append((path.stem, ast.unparse(node.func), "threshold" in given))
    assert {"05_visualize_attention", "06_audit", "07_evidence"} <= {name for name, *_ in calls}
    assert [call for call in calls if not call[2]] == []


def test_grad_cam_is_0_where_block_5_is_not_part_of_the_answer():
    network = AttnVGG(attention="none", bypass=False)
    images = torch.randn(2, 3, 64, 96)
    cam, output = attribution.grad_cam(network, images)
    assert cam.shape == (2, 1, 4, 6) and not cam.any()
    with torch.no_grad():
        assert torch.equal(output.logits, network(images).logits)
