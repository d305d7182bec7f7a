"""The tutorial's claims in its own words, each with the test that fits it and a verdict.

A function a claim. What the tutorial says of malignant images is measured on melanomas alone; a
region is an area above a level, and not a sum; "lighter to train" is what a training step needs.
What people say of attention and the tutorial does not is judged too, and called "often said".

A claim is made of parts, all of which it needs. Each part is a difference, measured by one
yardstick or by several that should agree. A part is supported where every interval lies above 0,
contradicted where every interval lies below 0, and else undecided. A claim is contradicted where a
part is, supported where all are, "not measured" where a part is missing, and else undecided. An
identity, true or false whatever was trained, has neither n nor interval, and is called one.
"""

import functools
import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torchvision.models import vgg16_bn

from helpers import workspace
from helpers.audit.attribution import grad_cam
from helpers.audit.costs import cost
from helpers.audit.localisation import SAME, class_gap, paired
from helpers.audit.tutorial import OFTEN_SAID, by_name, quoted
from helpers.model import AttnVGG
from helpers.scores.bootstrap import side, span

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
UNDECIDED = "undecided"
NOT_MEASURED = "not measured"
IDENTITY = "identity"
VERDICTS = (SUPPORTED, CONTRADICTED, UNDECIDED, NOT_MEASURED, IDENTITY)

# what the tutorial prints and does: the last validation batch of 2,296 photographs in fifties
PRINTED_AUC = 0.851
BATCH = 50
BENIGN_DRAWN = 6_000
BALANCED = 0.4  # share of the rarer class from which on a sample is no more called unbalanced
FULL_TABLE = workspace.PROJECT / "data" / "results" / "full_table.json"
OVER_SEEDS = workspace.PROJECT / "data" / "results" / "over_seeds-claims.csv"

Part = dict[str, dict | None]  # differences as `interval` gives them, by what they are


def reads_only(network: AttnVGG, images: Tensor) -> bool:
    """Whether Grad-CAM leaves the network as it was: every weight, buffer and gradient.

    Args:
        network: of one logit, in evaluation mode.
        images: [B, 3, H, W], normalised.
    """
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [parameter.grad for parameter in network.parameters()]
    grad_cam(network, images)
    same = all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    now = [parameter.grad for parameter in network.parameters()]
    return same and all(old is new for old, new in zip(gradients, now, strict=True))


def side_of(gap: dict | None) -> str:
    """As `bootstrap.side`, but that what differs by less than rounding is "around" 0.

    >>> side_of({"low": 1e-9, "high": 2e-9}), side_of(None)
    ('around', 'missing')
    """
    if gap is None:
        return "missing"
    found = side(gap)
    if (found == "above" and gap["low"] <= SAME) or (found == "below" and gap["high"] >= -SAME):
        return "around"
    return found


def weigh(parts: Sequence[Part]) -> str:
    """The verdict that follows from the parts of a claim; see the head of this file.

    >>> up = {"value": 0.2, "low": 0.1, "high": 0.3, "n": 40}
    >>> down = {"value": -0.2, "low": -0.3, "high": -0.1, "n": 40}
    >>> weigh([{"a": up}]), weigh([{"a": up}, {"b": down}]), weigh([{"a": up, "b": down}])
    ('supported', 'contradicted', 'undecided')
    """
    verdicts = []
    for part in parts:
        sides = {side_of(gap) for gap in part.values()}
        if sides == {"above"}:
            verdicts.append(SUPPORTED)
        elif sides == {"below"}:
            verdicts.append(CONTRADICTED)
        elif "missing" in sides:
            verdicts.append(NOT_MEASURED)
        else:
            verdicts.append(UNDECIDED)
    for word in (CONTRADICTED, NOT_MEASURED, UNDECIDED):
        if word in verdicts:
            return word
    return SUPPORTED


def in_words(parts: Sequence[Part]) -> str:
    """The differences of a claim's parts with interval and n."""
    measured = []
    for part in parts:
        for name, gap in part.items():
            if gap is not None:
                figure = span(gap["value"], gap["low"], gap["high"], form="+.3f")
                measured.append(f"{name} {figure}, n {gap['n']}")
    return "; ".join(measured)


def row(name: str, test: str, measured: str, verdict: str, *, words: str = "") -> dict:
    """A row of `claims`.

    Args:
        name: of the passage in tutorial.py.
        test: what was measured for it, in words.
        measured: what came out.
        verdict: one of VERDICTS.
        words: the part of the passage that is judged; all if not given.
    """
    passage = by_name(name)
    return {
        "said": "often said" if passage in OFTEN_SAID else "by the tutorial",
        "claim": quoted(name, words),
        "where": passage.where,
        "photographs": passage.photographs,
        "test": test,
        "measured": measured,
        "verdict": verdict,
    }


def judge(name: str, test: str, parts: Sequence[Part], *, words: str = "") -> dict:
    """A row of `claims` whose verdict follows from differences. Arguments as `row` and `weigh`."""
    return row(name, test, in_words(parts), weigh(parts), words=words)


def of_class(measured: pd.DataFrame | None, target: int) -> pd.DataFrame | None:
    """The rows of `localisation.measure` of one class; None where nothing was measured."""
    return None if measured is None else measured[measured["target"] == target]


def gap_of(measured: pd.DataFrame | None, figure: str, first: str, second: str) -> dict | None:
    """As `localisation.paired`; None where nothing was measured."""
    return None if measured is None else paired(measured, figure, first, second)


def level_of(attention: str) -> tuple[str, str]:
    """The column of `measure` that has the area above a level of a map's own scale, and its name.

    A softmax map's values are shares: above the mean is more than an equal share. Sigmoid's go from
    0 to 1: its half is the level.
    """
    if attention == "softmax":
        return "above_mean", "area with more than an equal share"
    return "above_half", "area at .5 of the scale or more"


def is_post_hoc(unchanged: bool | None) -> dict:
    """Grad-CAM reads a finished network: an identity, checked on this one."""
    test = "every weight of the network before and after Grad-CAM"
    if unchanged is None:
        return row("post-hoc", test, "", NOT_MEASURED)
    if unchanged:
        return row("post-hoc", test, "the same to the last bit: it only reads", IDENTITY)
    return row("post-hoc", test, "not the same", CONTRADICTED)


def shows_what_is_responsible() -> dict:
    """Where a map lies is not what the answer rests on: notebook 07 intervenes to see that."""
    test = "replace the maps, and see what the answers lose: notebook 07_evidence does"
    return row("responsible parts", test, "", NOT_MEASURED)


def pool3_is_more_diffuse(measured: pd.DataFrame) -> dict:
    """On melanomas pool-3's map needs more of the area for half of its sum, and for its region."""
    names = ("attention_pool3", "attention_pool4")
    melanomas = of_class(measured, 1)
    part = {
        "area of half of the sum, pool-3 less pool-4": gap_of(melanomas, "concentration", *names),
        "area of the upper half of the range, pool-3 less pool-4": gap_of(
            melanomas, "region", *names
        ),
    }
    test = "melanomas alone: both areas are larger for pool-3"
    words = (
        "The shallower layer (pool-3) tends to focus on more general and diffused areas, while the "
        "deeper layer (pool-4) is more concentrated"
    )
    return judge("malignant maps", test, [part], words=words)


def pool4_is_on_the_lesion(measured: pd.DataFrame, shifted: pd.DataFrame | None) -> dict:
    """On melanomas more of pool-4's map lies on the lesion than chance and habit put there.

    Lesions are photographed in the middle: crops with the lesion at the side tell a map that
    follows it from one that lies in the middle.
    """
    whole = gap_of(of_class(measured, 1), "energy", "attention_pool4", "uniform")
    crops = gap_of(of_class(shifted, 1), "energy", "attention_pool4", "centre")
    parts = [
        {"share on the lesion, pool-4 less uniform": whole},
        {"in shifted crops, pool-4 less a centred blob": crops},
    ]
    test = "melanomas alone: above chance, and above a centred blob where lesions lie at the side"
    words = "focusing on the lesion and avoiding irrelevant pixels"
    return judge("malignant maps", test, parts, words=words)


def regions_shrink_when_benign(measured: pd.DataFrame, attention: str) -> dict:
    """On benign images pool-4's region is smaller than pool-3's, and than its own on melanomas."""
    names = ("attention_pool3", "attention_pool4")
    column, level = level_of(attention)
    benign = of_class(measured, 0)
    pool4 = measured[measured["map"] == "attention_pool4"]
    deeper = {}
    by_target = {}
    for figure, words in {"region": "area of the upper half of the range", column: level}.items():
        deeper[f"benign: {words}, pool-3 less pool-4"] = gap_of(benign, figure, *names)
        by_target[f"pool-4: {words}, melanoma less benign"] = class_gap(pool4, figure)
    test = (
        "areas above a level, of the map's range and of its own scale: on benign images smaller in "
        "pool-4 than in pool-3, and smaller than pool-4's on melanomas"
    )
    return judge("benign maps", test, [deeper, by_target])


def sum_falls_when_benign(measured: pd.DataFrame, attention: str) -> dict:
    """The same sentence read of the map's sum; of a softmax map an identity."""
    words = "pool-4 eventually minimizes the activated regions because the image is benign"
    test = "another reading: the sum of pool-4's map, and not its area"
    if attention == "none":
        return row("benign maps", test, "", NOT_MEASURED, words=words)
    if attention == "softmax":
        found = "a softmax map sums to 1 on every photograph, so that its sum cannot fall"
        return row("benign maps", test, found, IDENTITY, words=words)
    gap = class_gap(measured[measured["map"] == "attention_pool4"], "mean")
    parts = [{"mean of pool-4's map, melanoma less benign": gap}]
    return judge("benign maps", test, parts, words=words)


@functools.cache
def cost_of(attention: str, bypass: bool) -> dict[str, int]:
    """`costs.cost` of the network with this attention; counted once."""
    return cost(lambda: AttnVGG(attention=attention, bypass=bypass))


@functools.cache
def cost_of_vgg() -> dict[str, int]:
    """`costs.cost` of VGG16-BN; counted once."""
    return cost(vgg16_bn)


def has_fewer_parameters(attention: str, bypass: bool) -> dict:
    """Parameters against VGG16-BN's, whose dense layers are left out; multiply-adds beside them."""
    ours = cost_of(attention, bypass)
    vgg = cost_of_vgg()
    shares = {what: ours[what] / vgg[what] for what in ours}
    measured = (
        f"{ours['parameters']:,} of VGG16-BN's {vgg['parameters']:,} ({shares['parameters']:.1%}); "
        f"of its multiply-adds, of which the sentence does not speak, {shares['multiply-adds']:.1%}"
    )
    verdict = SUPPORTED if shares["parameters"] < 1 / 2 else CONTRADICTED
    test = "counted; greatly: under half"
    words = "the number of parameters are greatly reduced"
    return row("lighter", test, measured, verdict, words=words)


def is_lighter_to_train(found: dict | None) -> dict:
    """Time and memory of a training step beside VGG16-BN's, of `costs.lighter`.

    Supported where both are less, contradicted where neither is; undecided where they disagree.
    """
    test = "a training step beside VGG16-BN's: its time in each repeat, and its memory"
    words = "the network is lighter to train"
    if found is None:
        return row("lighter", test, "", NOT_MEASURED, words=words)
    ours, theirs = (found["seconds"][name] for name in ("AttnVGG", "VGG16-BN"))
    memory = found["bytes"]["AttnVGG"] / found["bytes"]["VGG16-BN"]
    shorter = sum(our < their for our, their in zip(ours, theirs, strict=True))
    if shorter == len(ours) and memory < 1:
        verdict = SUPPORTED
    elif shorter == 0 and memory >= 1:
        verdict = CONTRADICTED
    else:
        verdict = UNDECIDED
    measured = (
        f"a step with a batch of {found['batch']}, {found['side']} pixels, was shorter in "
        f"{shorter} of {len(ours)} repeats; memory {memory:.1%} of VGG16-BN's"
    )
    return row("lighter", test, measured, verdict, words=words)


def focal_loss_listens_less_to_the_easy() -> dict:
    """A factor of at most 1 that falls as the probability of the true class rises."""
    test = "the factor (1 - p) ** gamma of the loss, p the probability of the true class"
    measured = "below 1 for every p above 0, and the lower the easier: of easy photographs it holds"
    return row("focal loss", test, measured, IDENTITY)


def sample_is_unbalanced(table: dict | None) -> dict:
    """The share of melanomas among the photographs that the tutorial trains on."""
    test = f"melanomas among its training photographs; unbalanced: under {BALANCED:.0%} of a class"
    if table is None:
        return row("unbalanced", test, "", NOT_MEASURED)
    held_out = table["figures"]["leaks"]["tutorial"]
    all_melanomas = table["data"]["melanomas"]
    melanomas = all_melanomas - held_out["melanomas"]
    count = BENIGN_DRAWN + all_melanomas - held_out["photographs"]
    share = melanomas / count
    rare = min(share, 1 - share)
    measured = (
        f"{melanomas:,} of {count:,} ({share:.0%}), after drawing {BENIGN_DRAWN:,} benign ones; "
        f"in the whole table {all_melanomas / table['data']['photographs']:.0%}"
    )
    return row("unbalanced", test, measured, SUPPORTED if rare < BALANCED else CONTRADICTED)


def won_the_competition() -> dict:
    """What the record of the competition of 2014 says."""
    test = "the record of the ImageNet challenge of 2014 (Russakovsky et al., IJCV 2015)"
    measured = "VGG won the localisation task, and was second in classification"
    return row("competition", test, measured, CONTRADICTED)


@functools.cache
def dense_layers() -> int:
    """How many torchvision's VGG16-BN has."""
    with FakeTensorMode():
        return sum(isinstance(layer, nn.Linear) for layer in vgg16_bn().modules())


def has_two_dense_layers() -> dict:
    """The dense layers of torchvision's VGG16-BN, counted."""
    count = dense_layers()
    verdict = SUPPORTED if count == 2 else CONTRADICTED
    return row("dense layers", "counted in torchvision's VGG16-BN", f"{count}", verdict)


def auc_interval(auc: float, positives: int, negatives: int) -> dict:
    """An AUC that was printed, and its 95% interval from the counts alone.

    Hanley and McNeil, Radiology 1982: it takes photographs for independent.

    Returns:
        value, low, high, n, as `interval`.

    >>> found = auc_interval(0.851, 22, 24)
    >>> round(found["low"], 2), round(found["high"], 2), found["n"]
    (0.74, 0.97, 46)
    """
    two_melanomas = auc / (2 - auc)
    two_benign = 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc)
    variance += (positives - 1) * (two_melanomas - auc**2)
    variance += (negatives - 1) * (two_benign - auc**2)
    half = 1.96 * math.sqrt(variance / (positives * negatives))
    return {
        "value": auc,
        "low": auc - half,
        "high": min(1.0, auc + half),
        "n": positives + negatives,
    }


def validation_looks_good(table: dict | None) -> dict:
    """The printed AUC, of the last batch alone, beside a guess that sees no photograph."""
    test = "the AUC of its last batch, less that of age, sex, site and source, no photograph seen"
    if table is None:
        return row("validation", test, "", NOT_MEASURED)
    held_out = table["figures"]["leaks"]["tutorial"]
    blind = table["figures"]["baselines"]["tutorial"]["metadata only"]["auc"]
    last = held_out["photographs"] % BATCH or BATCH
    positives = round(last * held_out["melanomas"] / held_out["photographs"])
    printed = auc_interval(PRINTED_AUC, positives, last - positives)
    gap = {end: printed[end] - blind for end in ("value", "low", "high")} | {"n": last}
    return judge("validation", test, [{f"{PRINTED_AUC} less {blind:.3f}": gap}])


def explains_better_than_grad_cam(measured: pd.DataFrame) -> dict:
    """Pool-4's map against Grad-CAM's: share on the lesion, and ranking of pixels."""
    part = {}
    for figure, words in {"energy": "share on the lesion", "pixel_auc": "pixel AUC"}.items():
        gap = paired(measured, figure, "attention_pool4", "grad_cam")
        part[f"{words}, pool-4 less Grad-CAM"] = gap
    test = "better: more of pool-4's map on the lesion, and its pixels ranked higher"
    return judge("better than Grad-CAM", test, [part])


def explains_better_than_other_methods(posthoc: pd.DataFrame | None) -> dict:
    """Pool-4's map against both of the slow methods, on the photographs drawn for them."""
    parts = []
    methods = {"integrated_gradients": "Integrated Gradients", "occlusion": "Occlusion"}
    for method, words in methods.items():
        gap = gap_of(posthoc, "energy", "attention_pool4", method)
        parts.append({f"share on the lesion, pool-4 less {words}": gap})
    test = "better: more of pool-4's map on the lesion than of either method's"
    return judge("better than post-hoc", test, parts)


def improves_the_auc(auc: dict | None, attention: str) -> dict:
    """The run's test AUC less that of its control, which has no attention."""
    if attention == "none":
        auc = None  # what was compared is not attention
    test = "the same network without attention, trained and tested on the same photographs"
    return judge("better AUC", test, [{"test AUC, this run less its control": auc}])


def full_table() -> dict | None:
    """What `bench/full_table.py` found on the tutorial's own data set; None without its file."""
    if not FULL_TABLE.is_file():
        return None
    return workspace.read_json(FULL_TABLE, "bench/full_table.py")


def claims(
    measured: pd.DataFrame,
    attention: str,
    auc: dict | None = None,
    *,
    bypass: bool = True,
    shifted: pd.DataFrame | None = None,
    posthoc: pd.DataFrame | None = None,
    training: dict | None = None,
    unchanged: bool | None = None,
    seed: int | None = None,
) -> list[dict]:
    """The tutorial's claims, and what is often said, judged; what is not given is not measured.

    Args:
        measured: rows of `localisation.measure`, of the test photographs.
        attention: of the network: one of `model.NORMALIZATIONS`, or "none".
        auc: of `bootstrap.auc_difference`, of this run and its control.
        bypass: of the network.
        shifted: rows of `measure`, of the test photographs' shifted crops.
        posthoc: rows of `measure`, of the photographs drawn for the slow methods; attention's
            maps too.
        training: of `costs.lighter`.
        unchanged: of `reads_only`.
        seed: that the network was trained with.

    Returns:
        Rows of said ("by the tutorial" or "often said"), claim (word for word), where it stands,
        photographs (of which it is said), test, measured, verdict (one of VERDICTS) and seeds (on
        which it rests).
    """
    table = full_table()
    rows = [
        is_post_hoc(unchanged),
        shows_what_is_responsible(),
        pool3_is_more_diffuse(measured),
        pool4_is_on_the_lesion(measured, shifted),
        regions_shrink_when_benign(measured, attention),
        sum_falls_when_benign(measured, attention),
        has_fewer_parameters(attention, bypass),
        is_lighter_to_train(training),
        focal_loss_listens_less_to_the_easy(),
        sample_is_unbalanced(table),
        won_the_competition(),
        has_two_dense_layers(),
        validation_looks_good(table),
        explains_better_than_grad_cam(measured),
        explains_better_than_other_methods(posthoc),
        improves_the_auc(auc, attention),
    ]
    seeds = [] if seed is None else [seed]
    return [judged | {"seeds": seeds} for judged in rows]


def by_seed(audits: Sequence[dict]) -> pd.DataFrame:
    """The verdicts of several trainings beside each other.

    Args:
        audits: for each seed the content of audit.json.

    Returns:
        A row for each claim and test, a column for each seed; NOT_MEASURED where an audit lacks
        the claim.

    Raises:
        ValueError: two audits are of one seed.
    """
    columns = {}
    for number, audit in enumerate(audits):
        verdicts = {
            (judged["claim"], judged["test"]): judged["verdict"] for judged in audit["claims"]
        }
        seed = audit.get("seed", number)
        if seed in columns:
            raise ValueError(f"two audits are of seed {seed}, expected one of each: leave one out")
        columns[seed] = pd.Series(verdicts)
    return pd.DataFrame(columns).fillna(NOT_MEASURED).rename_axis(["claim", "test"])


def other_trainings() -> pd.DataFrame | None:
    """`by_seed` of the trainings that `bench/over_seeds.py` ran; None without its file."""
    if not OVER_SEEDS.is_file():
        return None
    rows = pd.read_csv(OVER_SEEDS)
    table = rows.pivot(index=["claim", "test"], columns="seed", values="verdict")
    in_order = rows[["claim", "test"]].drop_duplicates()
    return table.reindex(pd.MultiIndex.from_frame(in_order))
