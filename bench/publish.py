"""Put what was measured where it is read: README, the pages of data/, bench/ and site/, notebooks.

    python bench/publish.py              write the figures of data/results/ into the pages
    python bench/publish.py --check      say which pages hold other figures; exit 1 if any does
    python bench/publish.py --measure [--marking FILE]
                                      [--dataset FOLDER_OR_ZIP --masks FOLDER_OR_ZIP --weights FILE]
                                         run the programs first; on real ones where named

A page names a block, and what stands in it is replaced:

    <!-- results: sample-teaches -->
    ...
    <!-- /results -->

BLOCKS says which there are. No figure that a program measured is typed into a page by hand.
"""

import argparse
import difflib
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import record

from helpers.runs import estimate, parameters

sys.path.insert(0, str(record.workspace.PROJECT / "site"))
import stored  # noqa: E402

PROJECT = record.workspace.PROJECT
DEEPER = PROJECT / "notebooks" / "deeper"
PAGES = [
    *("README.md", "bench/README.md", "data/README.md", "site/*.md", "site/*/*.md"),
    *("notebooks/*.ipynb", "notebooks/*/*.ipynb"),
]
BLOCK = re.compile(
    r"(?P<start><!-- results: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- /results -->)", re.DOTALL
)
NETWORKS = ["no attention", "softmax", "sigmoid, with masks"]
BEGUN_FROM = "Otsu, weighted, closed"  # by the further ideas of mend.py
SHORT = []  # notebooks/params/short.yaml, but for the run's name
for name, value in parameters.read_file(str(estimate.SHORT)).items():
    if name != "run":
        SHORT += ["-p", name, str(value)]
# of a laptop's kind of machine, without fast bf16
SHORT_TIMES = ("running_times_laptop", "running_times_short")
# the commands whose results are published; words in capitals stand for the reader's files
MEASURE = {
    "running_times": [],
    "speed": [],
    "sample_teaches": [],
    "planted_shortcut": [],
    "full_table": ["MARKING"],
    "lookalikes": ["DATASET"],
    "real_photographs": [
        *("--dataset", "DATASET", "--masks", "MASKS", "--seeds", "0", "1", "--networks", *NETWORKS),
        *("-p", "weights", "WEIGHTS", "-p", "epochs", "2", "-p", "learning_rate", "1e-4"),
        *("-p", "subsample", "1500"),
    ],
    "mend": ["-p", "image_size", "64", "-p", "epochs", "6"],
    "over_seeds": [],
    "over_seeds_short": ["--name", "over_seeds_short", *SHORT],
    "running_times_laptop": ["--only", "0", "--name", "running_times_laptop"],
    "running_times_short": ["--only", "0", "--name", "running_times_short", *SHORT],
    "mend_real": [
        *("--name", "mend_real", "--dataset", "DATASET", "--masks", "MASKS"),
        *("--networks", "no attention", "softmax", "Otsu, weighted, closed"),
        *("masks, weighted, closed", "-p", "weights", "WEIGHTS", "-p", "image_size", "128"),
        *("-p", "epochs", "6", "-p", "learning_rate", "1e-4", "-p", "subsample", "1500"),
        *("-p", "benign", "0"),
    ],
    # the photographs that anybody gets without an account, all of them
    "mend_isic": [
        *("--name", "mend_isic", "--dataset", "isic", "--seeds", "0"),
        *("--networks", "no attention", "softmax", "masks, weighted, closed"),
        *("-p", "weights", "WEIGHTS", "-p", "image_size", "64", "-p", "epochs", "4"),
        *("-p", "learning_rate", "1e-4", "-p", "benign", "0"),
    ],
}
# results whose program has another name
PROGRAMS = {
    "mend_isic": "mend",
    "mend_real": "mend",
    "over_seeds_short": "over_seeds",
    "running_times_laptop": "running_times",
    "running_times_short": "running_times",
}


def short(value: float) -> str:
    """Three decimals, without the zero before the point; of too few photographs there is no value.

    >>> short(0.7912), short(float("nan"))
    ('.791', 'too few')
    """
    if math.isnan(value):
        return "too few"
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def signed(value: float) -> str:
    """`short` with its sign.

    >>> signed(-0.0181), signed(0.5)
    ('-.018', '+.500')
    """
    sign = "" if math.isnan(value) else "+" if value >= 0 else "-"
    return sign + short(abs(value))


def span(
    value: float,
    low: float | None,
    high: float | None,
    shown: Callable[[float], str] = short,
) -> str:
    """A figure and its interval, where its photographs are enough for one: else NaN, None in json.

    >>> span(0.75, 0.7, 0.8), span(0.75, float("nan"), float("nan"))
    ('.750 (.700 to .800)', '.750 (too few)')
    """
    if low is None or math.isnan(low):
        return f"{shown(value)} (too few)"
    return f"{shown(value)} ({shown(low)} to {shown(high)})"


def span_of(row: dict, name: str, shown: Callable[[float], str] = short) -> str:
    """`span` of the columns name, name_low and name_high."""
    return span(row[name], row[f"{name}_low"], row[f"{name}_high"], shown)


def markdown(rows: Iterable[Iterable]) -> str:
    """A table in Markdown; the first row is its header."""
    lines = [[str(cell) for cell in row] for row in rows]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rests_on(result: dict) -> str:
    """What a result rests on, in a sentence or two."""
    machine, data, weights = result["machine"], result["data"], result["weights"]
    instructions = ", ".join(machine["instructions"]) or "without fast instructions"
    photographs = f"{data['name']}, {data['photographs']:,} photographs"
    if weights["name"] == "none":
        start = "no pretrained weights"
    elif weights["stand_in"]:
        start = f"stand-in weights, not torchvision's: {weights['name']}, CRC-32 {weights['crc32']}"
    else:
        start = "torchvision's ImageNet weights"
    return (
        f"Measured on {result['date']} at commit {result['commit']} by `{result['command']}`: "
        f"{photographs}, {data['melanomas']:,} melanomas (ids {data['ids']}); {start}; "
        f"{machine['cores']} cores of {machine['processor']} ({instructions}), "
        f"{machine['device']}, {machine['precision']}, PyTorch {machine['torch']}."
    )


def tutorial() -> str:
    """What the stored notebooks of the series found on the sample."""
    train = stored.read("notebooks/04_train.ipynb")
    audit = stored.read("notebooks/06_audit.ipynb")
    test = stored.table_with(train, "test", "auc_low")["test"]
    maps = stored.table_with(audit, "attention pool-3", "energy")

    def energy(name: str) -> str:
        return maps[name]["energy"].split(" ")[0].removeprefix("0")

    auc = test["auc"].removeprefix("0")
    low = test["auc_low"].removeprefix("0")
    high = test["auc_high"].removeprefix("0")

    return (
        f"`make tutorial` (drawn sample, {test['n']} tested, {test['positives']} melanomas; "
        f"no pretrained weights; {stored.machine(train)}): test AUC {auc} (95% interval "
        f"{low} to {high}); share of the map's sum on the lesion "
        f"{energy('attention pool-3')} for pool-3, {energy('attention pool-4')} for pool-4, "
        f"{energy('Grad-CAM')} for Grad-CAM, {energy('centre')} for a centred blob, "
        f"{energy('uniform (chance)')} by chance. A network that classifies well need not look "
        "at the lesion where its maps say."
    )


def mended() -> str:
    """The two numbers below the README's first figure: place and AUC, before and after."""
    notebook = stored.read("notebooks/08_mend.ipynb")
    places = stored.table_with(notebook, "before: pool-3, all", "iou")
    scores = stored.table_with(notebook, "before", "test AUC")

    def plain(cell: str) -> str:
        return cell.replace("0.", ".")

    before = plain(places["before: pool-3, all"]["iou"])
    after = plain(places["after: pool-3, all"]["iou"])
    return (
        f"**Overlap of pool-3's map with the lesion (IoU): {before} before, {after} after. Test "
        f"AUC: {plain(scores['before']['test AUC'])} before, {plain(scores['after']['test AUC'])} "
        f"after, {plain(scores['control']['test AUC'])} without attention.** In brackets 95% "
        f"intervals over patients and lesions; drawn sample, {stored.machine(notebook)}."
    )


def sample_teaches(result: dict) -> str:
    within = result["figures"]["within"]
    cells = {}
    for name, figure in within.items():
        cells[name] = span(figure["value"], figure["low"], figure["high"])
    return (
        "The evidence is in the lesion: within source, the sample's test AUC is "
        f"{cells['with lesions']}, and {cells['painted over']} with skin painted over every "
        f"lesion ({len(result['seeds'])} seeds, their mean). {rests_on(result)}"
    )


def planted_answers(result: dict) -> str:
    """What a planted ruler does to each network's answers, means over the seeds."""
    table = result["tables"]["planted_shortcut-answers.csv"]
    lines = [["network", "trained on", "AUC, rulers as in training", "AUC, rulers by the coin"]]
    lines[0] += ["fall (95%)", "a ruler moves the logit by (95%)"]
    for row in table.to_dict("records"):
        line = [row["network"], f"the {row['sample']} sample"]
        line += [span_of(row, "planted"), span_of(row, "free")]
        line += [span_of(row, "fall", signed), span_of(row, "moved", signed)]
        lines.append(line)
    figures = result["figures"]
    split, chosen = figures["split"], figures["parameters"]
    return (
        f"{markdown(lines)}\n\nMeans over the seeds {', '.join(map(str, result['seeds']))}; a move "
        "is in standard deviations of the logits without a ruler. "
        f"{split['train']:,} photographs to train, {split['val']:,} to validate, "
        f"{split['test']:,} to test, of these {figures['test_melanomas']:,} melanomas; "
        f"{chosen['image_size']} pixels, {chosen['epochs']} epochs. {rests_on(result)}"
    )


def planted_maps(result: dict) -> str:
    """Where each map lies when a ruler is there, means over the seeds."""
    table = result["tables"]["planted_shortcut-findings.csv"]
    blind = table["map"].isin(["centre", "uniform"])  # the same beside every network
    once = table[blind].drop_duplicates("map").assign(network="any")
    table = pd.concat([table[~blind], once])
    lines = [["network", "map", "on the ruler, times chance (95%)"]]
    lines[0] += ["more than without the ruler (95%)", "seeds that find it, follow it"]
    lines[0] += ["tells the two networks apart, AUC (95%)", "on the lesion"]
    for row in table.to_dict("records"):
        line = [row["network"], row["map"], span_of(row, "times"), span_of(row, "more", signed)]
        line.append(f"{row['found']}, {row['followed']} of {row['seeds']}")
        lines.append([*line, span_of(row, "tells"), short(row["lesion"])])
    return (
        f"{markdown(lines)}\n\nThe networks of the planted sample. Chance is the ruler's share of "
        f"the area, {short(result['figures']['chance'])} on average. {false_alarms(result)}"
    )


def false_alarms(result: dict) -> str:
    """Which maps lie on a ruler and follow it in networks that met no shortcut, a sentence."""
    table = result["tables"]["planted_shortcut-maps.csv"]
    free = table[table["sample"] == "unplanted"]
    both = free[(free["times_low"] > 1) & (free["more_low"] > 0)]
    seeds = free["seed"].nunique()
    found = [
        f"{name} ({network}; {len(rows)} of {seeds})"
        for (network, name), rows in both.groupby(["network", "map"], sort=False)
    ]
    return (
        "Networks of the unplanted sample, which met no shortcut, have maps that find a ruler and "
        f"follow it, too, in brackets in how many seeds: {', '.join(found) or 'none'}."
    )


def mend_table(result: dict) -> str:
    """Each combination of teacher, mean and bypass, beside the control of the same seeds."""
    names = [name for name in table_of(result, "networks")["network"] if further(name) is None]
    figures = result["figures"]
    chosen = figures["parameters"]
    return (
        f"{markdown(mend_lines(result, names))}\n\n*Teacher, mean, bypass. {over(result)}, in "
        "brackets 95% intervals over patients and lesions; the four columns before the last are "
        "the AUC with both maps exchanged less the AUC with the network's own. The aim: IoU of .70 "
        "and .60, an AUC that is not shown to lie below the control's, and an AUC that falls with "
        "uniform maps, with another's, and with maps outside the lesion.* "
        f"{figures['test']:,} test photographs, {figures['test_melanomas']:,} melanomas; "
        f"{chosen['image_size']} pixels, {chosen['epochs']} epochs. {rests_on(result)}"
    )


def mend_further(result: dict) -> str:
    """The further ideas, below the combination that they begin from."""
    names = list(table_of(result, "networks")["network"])
    lines = mend_lines(result, [BEGUN_FROM, *(name for name in names if further(name))])
    for line in lines[1:]:
        line[0] = further(line[0]) or line[0]
    return (
        f"{markdown(lines)}\n\n*{over(result)}; columns, photographs and machine as in the table "
        "above.*"
    )


def further(network: str) -> str | None:
    """What a further idea of `mend.py` adds to BEGUN_FROM; None where it is no such idea.

    >>> further("Otsu, weighted, closed, and others' maps punished"), further("softmax")
    ("and others' maps punished", None)
    """
    start = f"{BEGUN_FROM}, "
    return network.removeprefix(start) if network.startswith(start) else None


def over(result: dict) -> str:
    """Over which seeds a table's figures are means."""
    names = ", ".join(map(str, result["seeds"]))
    return f"Means over the seeds {names}" if len(result["seeds"]) > 1 else f"Seed {names} alone"


def mend_lines(result: dict, names: list[str]) -> list[list[str]]:
    """A header and a line for each of these networks."""
    table = table_of(result, "networks").set_index("network")
    seeds = table_of(result, "seeds")
    lines = [["network", "test AUC", "less the control", "IoU pool-3", "IoU pool-4"]]
    lines[0] += ["uniform maps", "another's", "outside the lesion", "reversed"]
    lines[0].append("seeds that reach the aim")
    for name in names:
        row = table.loc[name].to_dict()
        line = [name, short(row["auc"])]
        has_maps = not math.isnan(row["iou_pool-3"])
        compared = not math.isnan(row["less_control"])
        line.append(span_of(row, "less_control", signed) if compared else "")
        for place in ("iou_pool-3", "iou_pool-4"):
            line.append(short(row[place]) if has_maps else "")
        for change in ("uniform", "another's", "outside", "reversed"):
            line.append(span_of(row, change, signed) if has_maps else "")
        if has_maps and compared:
            own = seeds[seeds["network"] == name]
            reached = own[["on_the_lesion", "needed", "costs_no_auc"]].eq(True).all(axis=1)
            line.append(f"{reached.sum()} of {len(own)}")
        else:
            line.append("")
        lines.append(line)
    return lines


def mend_short(result: dict) -> str:
    """README's table of the mend on real photographs."""
    table = table_of(result, "networks").set_index("network")
    names = {
        "softmax": "before",
        "masks, weighted, closed": "mended, taught by drawn masks",
        "Otsu, weighted, closed": "mended, taught by Otsu's threshold",
    }
    lines = [["maps", "on the lesion, IoU: pool-3, pool-4", "AUC less the control's (95%)"]]
    lines[0].append("AUC with another patient's maps less with its own (95%)")
    for network, name in names.items():
        row = table.loc[network].to_dict()
        places = f"{short(row['iou_pool-3'])}, {short(row['iou_pool-4'])}"
        exchanged = span_of(row, "another's", signed)
        lines.append([name, places, span_of(row, "less_control", signed), exchanged])
    figures = result["figures"]
    return (
        f"{markdown(lines)}\n\n{over(result)}; {figures['test']:,} test photographs, "
        f"{figures['test_melanomas']:,} melanomas. {rests_on(result)}"
    )


def mend_why(result: dict) -> str:
    """What might have moved the AUC of a combination: learnt by heart, or beside the lesion."""
    seeds = table_of(result, "seeds")
    lines = [["network", "AUC in training", "on validation", "on test", "training less test"]]
    lines[0] += ["lesion painted over (95%)", "background painted over (95%)"]
    for row in table_of(result, "networks").to_dict("records"):
        name = row["network"]
        if further(name) or name.endswith("open"):
            continue
        own = seeds[seeds["network"] == name]
        means = [own[f"{split}auc"].mean() for split in ("train_", "val_", "")]
        line = [name, *map(short, means), signed(means[0] - means[2])]
        line += [span_of(row, view) for view in ("no lesion, skin", "no background, skin")]
        lines.append(line)
    return (
        f"{markdown(lines)}\n\n*The networks of the first table but those with an open bypass. "
        f"{over(result)}. In training: on the augmented photographs of the kept epoch, while the "
        "weights still move. Painted over: the test photographs with the mean colour of their skin "
        "in that place.*"
    )


def over_seeds_claims(result: dict) -> str:
    """Each claim's verdict in each training, and what the networks of these trainings reach."""
    table = table_of(result, "claims")
    seeds = [str(seed) for seed in result["seeds"]]
    lines = [["claim", "said of", "test", *(f"seed {seed}" for seed in seeds)]]
    said_by = {"by the tutorial": "“{}”", "often said": "{}"}
    for (said, claim, test), rows in table.groupby(["said", "claim", "test"], sort=False):
        photographs = rows["photographs"].fillna("").iloc[0]
        lines.append([said_by[said].format(claim), photographs, test, *rows["verdict"]])
    scores = table_of(result, "scores").to_dict("records")
    aucs = ", ".join(short(row["auc"]) for row in scores)
    gaps = ", ".join(span_of(row, "less_control", signed) for row in scores)
    size = result["figures"]["parameters"]["image_size"]
    return (
        f"{markdown(lines)}\n\nTest AUC of the seeds {', '.join(seeds)}: {aucs}; less the "
        f"control's: {gaps}. {scores[0]['n']} test photographs, {scores[0]['positives']} "
        f"melanomas; {size} pixels. {rests_on(result)}"
    )


def over_seeds_classes(result: dict) -> str:
    """Where the maps lie, by class and training, and how the classes differ."""
    table = table_of(result, "classes")
    size = result["figures"]["parameters"]["image_size"]
    return f"{markdown(class_lines(table))}\n\n{size} pixels. {rests_on(result)}"


def short_run(usual: dict, fewer: dict, usual_time: dict, fewer_time: dict) -> str:
    """README's paragraph on notebooks/params/short.yaml: what it takes, and what it keeps."""

    def minutes(result: dict) -> str:
        seconds = sum(figures["seconds"] for figures in result["figures"].values())
        return duration(seconds)

    def aucs(result: dict) -> str:
        scores = table_of(result, "scores").to_dict("records")
        listed = ", ".join(span_of(row, "auc") for row in scores)
        gaps = ", ".join(signed(row["less_control"]) for row in scores)
        return f"{listed}, less the control's {gaps}"

    def pixels(result: dict) -> str:
        chosen = result["figures"]["parameters"]
        precision = result["machine"]["precision"]
        return f"{chosen['image_size']} pixels, {chosen['epochs']} epochs, {precision}"

    keys = ["seed", "said", "claim", "test"]
    both = table_of(usual, "claims").merge(
        table_of(fewer, "claims"), on=keys, how="outer", suffixes=("", "_fewer")
    )
    other = both[both["verdict"] != both["verdict_fewer"]]
    opposite = 0
    for _, row in other.iterrows():
        opposite += {row["verdict"], row["verdict_fewer"]} == {"supported", "contradicted"}
    seeds = usual["seeds"]
    sides = [result["figures"]["parameters"]["image_size"] // 16 for result in (usual, fewer)]
    return (
        f"On a machine {bf16_of(usual_time)} fast bf16 the nine notebooks take "
        f"{minutes(usual_time)} with the default parameters and {minutes(fewer_time)} short. Test "
        f"AUC of the seeds {', '.join(map(str, seeds))}: {aucs(usual)} ({pixels(usual)}); "
        f"{aucs(fewer)} ({pixels(fewer)}). Pool-4's map then has {sides[1]} x {sides[1]} cells in "
        f"place of {sides[0]} x {sides[0]}. Part 6 judges {len(both) // len(seeds)} claims in each "
        f"training, and some of them no training can change: of {len(both)} verdicts "
        f"{len(other)} differ between the two, {opposite} of them from supported to contradicted "
        "or back ([both tables](site/results.md)).\n\n"
        f"Times: {rests_on(usual_time)} {rests_on(fewer_time)} Trainings: {rests_on(usual)} "
        f"{rests_on(fewer)}"
    )


def mend_classes(result: dict) -> str:
    """Where the softmax network's maps lie, by class and seed, and how the classes differ."""
    table = table_of(result, "classes")
    table = table[table["network"] == "softmax"]
    return f"{markdown(class_lines(table))}\n\n{rests_on(result)}"


def class_lines(table) -> list[list[str]]:
    """Energy and IoU of each map and seed: on melanomas, on benign lesions, and the difference."""
    lines = [["map", "seed"]]
    for figure in ("energy", "IoU"):
        lines[0] += [f"{figure}, melanoma", f"{figure}, benign", "difference (95%)"]
    for (name, seed), rows in table.groupby(["map", "seed"], sort=False):
        of_class = rows.set_index("class").to_dict("index")
        line = [name, str(seed)]
        for figure in ("energy", "iou"):
            line += [short(of_class[kind][figure]) for kind in ("melanoma", "benign")]
            line.append(span_of(of_class["melanoma less benign"], figure, signed))
        lines.append(line)
    return lines


def lookalikes(result: dict) -> str:
    """What the search found on real photographs."""
    figures = result["figures"]
    return (
        f"On {result['data']['photographs']:,} real photographs the hash proposed "
        f"{figures['proposed']} pairs, and {figures['merged']} of them were merged, "
        f"{figures['equal_bytes']} with equal bytes. Ids and equal bytes had put "
        f"{figures['known']} of the {figures['merged']} in one group, and {figures['torn']} lay on "
        f"two sides of the split. {rests_on(result)}"
    )


def by_network(table) -> dict:
    """The rows of a table by network, in the table's order."""
    return dict(list(table.groupby("network", sort=False)))


def table_of(result: dict, name: str):
    """The table of a result whose file ends with this name."""
    for file, table in result["tables"].items():
        if file.endswith(f"-{name}.csv"):
            return table
    raise LookupError(f"{result['command']} left no table {name!r}")


def differences(result: dict, network: str, control: str) -> str:
    """The cell of a network's AUC less a control's."""
    table = table_of(result, "differences")
    rows = table[(table["network"] == network) & (table["control"] == control)]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    return span(row["value"], row["low"], row["high"], signed)


def real_scores(result: dict) -> str:
    """Each network's test AUC and AUC within source, a figure a seed."""
    controls = list(table_of(result, "differences")["control"].unique())
    lines = [["network", "seeds", "AUC (95%)", "within source"]]
    lines[0] += [f"less {control} (95%)" for control in controls]
    for network, rows in by_network(table_of(result, "scores")).items():
        each = rows.to_dict("records")
        line = [network, ", ".join(str(row["seed"]) for row in each)]
        line.append(", ".join(span_of(row, "auc") for row in each))
        line.append(", ".join(short(row["within"]) for row in each))
        line += [differences(result, network, control) for control in controls]
        lines.append(line)
    return f"{about_real(result)}\n\n{markdown(lines)}"


def about_real(result: dict) -> str:
    """Which photographs and which training the tables are of."""
    figures = result["figures"]
    split, chosen = figures["split"], figures["parameters"]
    rate = f", at most {chosen['learning_rate']:g}" if chosen["learning_rate"] else ""
    return (
        f"{split['train']:,} photographs to train, {split['val']:,} to validate, "
        f"{split['test']:,} to test, of these {figures['test_melanomas']:,} melanomas and "
        f"{figures['test_with_mask']:,} with a mask; {chosen['image_size']} pixels, "
        f"{chosen['epochs']} epochs of {chosen['recipe']}{rate}. {rests_on(result)}"
    )


def real_maps(result: dict) -> str:
    """The figures of each map, a figure a seed, on whole photographs and in crops."""
    table = table_of(result, "maps")
    columns = {"hits": "hits", "energy": "energy", "iou": "IoU"}
    lines = [["network", "map", *columns.values(), "hits in crops", "energy in crops"]]
    for (network, title), rows in table.groupby(["network", "map"], sort=False):
        whole = rows[rows["where"] == "whole"]
        crops = rows[rows["where"] == "crops"]
        cells = [whole["hits"], whole["energy"], whole["iou"], crops["hits"], crops["energy"]]
        lines.append([network, title, *(", ".join(map(short, cell)) for cell in cells)])
    return markdown(lines)


def real_baselines(result: dict) -> str:
    """What sees no lesion, on the same test photographs."""
    lines = [["baseline", "AUC (95%)", "within source"]]
    for row in table_of(result, "baselines").to_dict("records"):
        lines.append([row["baseline"], span_of(row, "auc"), short(row["within"])])
    return markdown(lines)


def real_short(result: dict) -> str:
    """README's table: a line a network, and what sees no lesion."""
    maps = table_of(result, "maps")
    maps = maps[maps["where"] == "whole"]
    lines = [["network", "test AUC", "less the control's (95%)", "pool-3 on the lesion", "pool-4"]]
    for network, rows in by_network(table_of(result, "scores")).items():
        own = maps[maps["network"] == network]
        line = [network, ", ".join(map(short, rows["auc"]))]
        line.append(differences(result, network, "no attention"))
        for title in ("pool-3", "pool-4"):
            line.append(", ".join(map(short, own.loc[own["map"] == title, "energy"])))
        lines.append(line)
    baselines = table_of(result, "baselines").set_index("baseline")["auc"]
    beside = maps[maps["network"] == "no network"].set_index("map")["energy"]
    return (
        f"{about_real(result)}\n\n{markdown(lines)}\n\nTo compare with: age, sex, site and "
        f"source, without a photograph, reach a test AUC of {short(baselines['metadata only'])}; "
        f"of a uniform map {short(beside['uniform'])} lies on the lesion, of a blob in the centre "
        f"{short(beside['centre'])}."
    )


def full_leaks(result: dict) -> str:
    """How many held-out photographs of the full table have a relative in training."""
    theirs, val, test = result["figures"]["leaks"].values()
    share = theirs["leak"] / theirs["photographs"]
    of_melanomas = theirs["melanomas_leak"] / theirs["melanomas"]
    benign = theirs["photographs"] - theirs["melanomas"]
    benign_leak = theirs["leak"] - theirs["melanomas_leak"]
    return (
        f"On the full table of {result['data']['photographs']:,} rows, of the tutorial's "
        f"{theirs['photographs']:,} validation photographs {theirs['leak']:,} leak "
        f"({share:.1%}), and {theirs['melanomas_leak']:,} of their {theirs['melanomas']:,} "
        f"melanomas ({of_melanomas:.0%}); of the benign ones {benign_leak:,} of {benign:,} "
        f"({benign_leak / benign:.0%}). Of ours, {val['leak']} of {val['photographs']:,} in "
        f"validation and {test['leak']} of {test['photographs']:,} in test (`{result['command']}`)."
    )


def full_memory(result: dict) -> str:
    """What remembering relatives is worth on the full table."""
    auc = result["figures"]["leaks"]["tutorial"]["memory_auc"]
    return (
        f"On the full table, memory alone reaches an AUC of {short(auc)} on the tutorial's "
        f"validation photographs (`{result['command']}`)."
    )


def full_baselines(result: dict) -> str:
    """What source and metadata reach on the full table, under both splits."""
    lines = [["split", "baseline", "AUC (95%)", "within source (95%)"]]
    for split, rows in result["figures"]["baselines"].items():
        for name, row in rows.items():
            lines.append([split, name, span_of(row, "auc"), span_of(row, "within")])
    return f"{markdown(lines)}\n\n`{result['command']}`"


def full_growth(result: dict) -> str:
    """What parts of the series take on the full table and on more, and what was made for them."""
    lines = [["part", "rows of the table", "seconds", "CPU seconds", "growth"]]
    lines[0] += ["memory, MB", "growth"]
    for row in result["figures"]["growth"]:
        line = [row["part"], f"{row['rows']:,}"]
        line += [f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}"]
        line.append(factor(row["cpu_seconds_growth"]))
        line.append("" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.0f}")
        line.append(factor(row["bytes_growth"]))
        lines.append(line)
    made = [f"- {part}: {what}" for part, what in result["figures"]["made"].items()]
    return "\n\n".join([markdown(lines), "\n".join(made), rests_on(result)])


def factor(growth: float | None) -> str:
    """What a figure is of the one at half the size; of the first there is none.

    >>> factor(1.934), factor(None)
    ('x 1.9', '')
    """
    return "" if growth is None else f"x {growth:.1f}"


def speed(result: dict) -> str:
    """README's sentence."""
    figures = result["figures"]
    share = figures["step"]["ours"] / figures["convolutions"]
    return (
        f"Training runs {figures['end_to_end']['ratio']:.1f} times as fast as the tutorial's loop "
        f"in the same run, and a step at {share:.0%} of the rate of its convolutions alone; the "
        f"cache decodes {figures['cache']['ratio']:.1f} times as much per core. {rests_on(result)}"
    )


def speed_table(result: dict) -> str:
    """All figures of `speed.py`, as it prints them."""
    return f"{rests_on(result)}\n\n```\n{result['figures']['printed']}\n```"


def speed_projection(result: dict) -> str:
    """What larger sets would cost at these rates, an item a size."""
    return "\n".join(f"- {line}" for line in result["figures"]["projected"])


def running_time(result: dict, notebook: str) -> str:
    """The line of a notebook's first cell."""
    if notebook not in result["figures"]:  # measured with --only
        return not_measured("running_times")
    figures = result["figures"][notebook]
    machine = result["machine"]
    where = machine["device"] if machine["device"] != "cpu" else f"{machine['cores']} cores"
    return (
        f"Time, with the sample: {duration(figures['seconds'])} on {where} of "
        f"{machine['processor']} ({bf16_of(result)} fast bf16), measured by "
        "`bench/running_times.py`."
    )


def running_times(usual: dict, laptop: dict, fewer: dict) -> str:
    """Seconds of each notebook of the series, and those of all cores together."""
    results = (usual, laptop, fewer)
    names = [path.stem for path in parameters.NOTEBOOKS]
    for result in results:
        if not set(names) <= set(result["figures"]):
            return not_measured("running_times")
    lines = [["notebook", *(f"{bf16_of(result)} fast bf16" for result in results)]]
    lines[0][-1] += ", short.yaml"
    for name in names:
        line = [name]
        for result in results:
            figures = result["figures"][name]
            line.append(f"{figures['seconds']:.0f} ({figures['processor_seconds']:.0f})")
        lines.append(line)
    line = ["all"]
    for result in results:
        rows = [result["figures"][name] for name in names]
        seconds = sum(figures["seconds"] for figures in rows)
        spent = sum(figures["processor_seconds"] for figures in rows)
        line.append(f"{seconds:.0f} ({spent:.0f})")
    lines.append(line)
    return f"{markdown(lines)}\n\n{' '.join(rests_on(result) for result in results)}"


def bf16_of(result: dict) -> str:
    """Whether the machine computes bf16 in hardware."""
    return "with" if has_fast_bf16(result["machine"]["instructions"]) else "without"


def has_fast_bf16(instructions: Iterable[str]) -> bool:
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(instructions)


def duration(seconds: float) -> str:
    """Seconds or minutes, to about one part in ten.

    >>> duration(23.4), duration(101), duration(170)
    ('25 seconds', '1.5 minutes', '3 minutes')
    """
    if seconds < 60:
        return f"{max(5, 5 * round(seconds / 5))} seconds"
    minutes = round(seconds / 30) / 2
    return "1 minute" if minutes == 1 else f"{minutes:g} minutes"


# name: what renders it, and the programs whose results it renders (none: the stored notebooks)
BLOCKS = {
    "tutorial": (tutorial,),
    "mended": (mended,),
    "short-run": (short_run, "over_seeds", "over_seeds_short", *SHORT_TIMES),
    "running-times": (running_times, "running_times", *SHORT_TIMES),
    "sample-teaches": (sample_teaches, "sample_teaches"),
    "over-seeds-claims": (over_seeds_claims, "over_seeds"),
    "over-seeds-classes": (over_seeds_classes, "over_seeds"),
    "over-seeds-short-claims": (over_seeds_claims, "over_seeds_short"),
    "over-seeds-short-classes": (over_seeds_classes, "over_seeds_short"),
    "mend-table": (mend_table, "mend"),
    "mend-further": (mend_further, "mend"),
    "mend-why": (mend_why, "mend"),
    "mend-real-table": (mend_table, "mend_real"),
    "mend-isic-table": (mend_table, "mend_isic"),
    "mend-real-short": (mend_short, "mend_real"),
    "mend-real-classes": (mend_classes, "mend_real"),
    "planted-answers": (planted_answers, "planted_shortcut"),
    "planted-maps": (planted_maps, "planted_shortcut"),
    "lookalikes": (lookalikes, "lookalikes"),
    "full-table-leaks": (full_leaks, "full_table"),
    "full-table-memory": (full_memory, "full_table"),
    "full-table-baselines": (full_baselines, "full_table"),
    "full-table-growth": (full_growth, "full_table"),
    "real-short": (real_short, "real_photographs"),
    "real-scores": (real_scores, "real_photographs"),
    "real-maps": (real_maps, "real_photographs"),
    "real-baselines": (real_baselines, "real_photographs"),
    "speed": (speed, "speed"),
    "speed-table": (speed_table, "speed"),
    "speed-projection": (speed_projection, "speed"),
}
for path in [*parameters.NOTEBOOKS, *sorted(DEEPER.glob("*.ipynb"))]:
    name = path.relative_to(DEEPER.parent).with_suffix("").as_posix()
    BLOCKS[f"time-{path.stem}"] = (partial(running_time, notebook=name), "running_times")


def file_of(program: str) -> str:
    """Where the program lies that leaves these results."""
    return f"bench/{PROGRAMS.get(program, program)}.py"


def block(name: str, folder: Path) -> str:
    """What stands in a block.

    Raises:
        SystemExit: there is no such block.
    """
    if name not in BLOCKS:
        raise SystemExit(f"there is no block {name!r}; there are: {', '.join(BLOCKS)}")
    render, *programs = BLOCKS[name]
    results = {program: record.read(program, folder) for program in programs}
    lacking = [program for program, result in results.items() if result is None]
    return not_measured(lacking[0]) if lacking else render(*results.values())


def not_measured(program: str) -> str:
    """What stands in a block until its program has run."""
    words = shlex.join(["python", file_of(program), *MEASURE[program]])
    return f"*Not measured yet: `{words}` measures it.*"


def filled(text: str, folder: Path = record.RESULTS) -> str:
    """A page with what stands in its blocks replaced."""

    def fill(match: re.Match) -> str:
        return f"{match['start']}\n{block(match['name'], folder)}\n\n{match['end']}"

    return BLOCK.sub(fill, text)


def pages() -> list[Path]:
    return sorted(path for pattern in PAGES for path in PROJECT.glob(pattern))


def filled_page(path: Path, folder: Path = record.RESULTS) -> str:
    """The whole text of a page, or of a notebook's file, with its blocks as they are to be."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return filled(text, folder)
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = filled(cell.source, folder)
    return nbformat.writes(notebook) + "\n"


def publish(*, check: bool) -> int:
    """Write the pages, or only say which lines differ; how many pages do."""
    differ = 0
    for path in pages():
        text = path.read_text(encoding="utf-8")
        wanted = filled_page(path)
        if wanted == text:
            continue
        differ += 1
        name = path.relative_to(PROJECT).as_posix()
        if check:
            lines = difflib.unified_diff(
                text.splitlines(), wanted.splitlines(), name, "data/results/", lineterm="", n=0
            )
            print("\n".join(lines))
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"{name}: written")
    return differ


def measure(given: dict[str, str | None]) -> None:
    """Run the programs of MEASURE that this machine is for, and whose photographs are named."""
    fast = has_fast_bf16(record.machine(record.torch.device("cpu"))["instructions"])
    for program, words in MEASURE.items():
        if program in ("running_times", *SHORT_TIMES) and fast == (program in SHORT_TIMES):
            kind = "without" if fast else "with"
            print(f"{program} stays as it was measured: it is of a machine {kind} fast bf16")
            continue
        lacking = [word.lower() for word in words if word in given and not given[word]]
        if lacking:
            print(f"{program} stays as it was measured: name --{', --'.join(lacking)}")
            continue
        words = [given.get(word) or word for word in words]
        print("python", file_of(program), *words, flush=True)
        subprocess.run([sys.executable, file_of(program), *words], cwd=PROJECT, check=True)  # noqa: S603


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it differs")
    parser.add_argument("--measure", action="store_true", help="run the programs first")
    for name in ("--marking", "--dataset", "--masks", "--weights"):
        parser.add_argument(name, help="the real table and photographs, with --measure")
    options = parser.parse_args()
    if options.measure:
        given = {
            "MARKING": options.marking,
            "DATASET": options.dataset,
            "MASKS": options.masks,
            "WEIGHTS": options.weights,
        }
        measure(given)
    differ = publish(check=options.check)
    return int(options.check and differ > 0)


if __name__ == "__main__":
    sys.exit(main())
