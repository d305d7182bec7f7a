"""helpers/audit/report.py: what stands in the tables and figures is what was measured."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from helpers.audit import claims, localisation, report


@pytest.fixture
def located():
    """By class, of 24 melanomas and 24 benign lesions; pool-3 lies on the benign ones."""
    target = np.arange(48) % 2
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, 48)
    parts = []
    for name, of_class in {"attention_pool3": (0.6, 0.1), "uniform": (0.25, 0.3)}.items():
        columns = {"row": range(48), "group": range(48), "target": target}
        part = pd.DataFrame(columns).assign(map=name, zero=False)
        for figure in localisation.FIGURES:
            part[figure] = np.array(of_class)[target] + noise
        parts.append(part)
    return localisation.by_class(pd.concat(parts, ignore_index=True))


def test_a_table_tells_each_figure_with_its_interval_and_leaves_out_what_was_not_measured(located):
    table = report.readable(located["all"])
    assert list(table.index) == ["attention pool-3", "uniform (chance)"]
    assert "best IoU" not in table, "no threshold was chosen"
    figures = located["all"]["attention_pool3"]
    expected = f"{figures['energy']:.2f} ({figures['energy_low']:.2f}-{figures['energy_high']:.2f})"
    assert table.loc["attention pool-3", "energy"] == expected
    assert report.readable({}).empty


def test_the_table_of_differences_is_of_the_same_photographs():
    noise = np.random.default_rng(0).uniform(0, 0.1, 24)
    parts = []
    for name, value in {"attention_pool3": 0.5, "uniform": 0.3, "centre": 0.4}.items():
        columns = {"row": range(24), "group": range(24), "map": name, "energy": value + noise}
        parts.append(pd.DataFrame(columns))
    table = report.gaps_table(pd.concat(parts), "energy", ["uniform", "centre", "otsu"])
    assert table.loc["attention pool-3"].to_dict() == {
        "less uniform (chance)": "+0.20 (+0.20 to +0.20)",
        "less centre": "+0.10 (+0.10 to +0.10)",
        "less Otsu's threshold": "not measured",
    }


def test_the_table_by_class_has_the_classes_and_their_difference(located):
    table = report.by_class_table(located)
    assert list(table) == ["all", "melanoma", "benign", "melanoma less benign"]
    row = table.loc["attention pool-3"]
    assert row["melanoma"].startswith("0.1") and row["benign"].startswith("0.6")
    assert row["melanoma less benign"].startswith("-0.50 (-0.5")
    benign = localisation.by_class(pd.DataFrame(columns=["energy", "map", "target"]))
    assert report.by_class_table(benign).empty


def test_the_figure_by_class_draws_each_value_and_chance_in_the_classs_colour(located):
    drawing = report.by_class_figure({"whole": located, "crops": located})
    assert [axis.get_title() for axis in drawing.axes] == ["whole", "crops"]
    axis = drawing.axes[0]
    dots = {to_hex(line.get_color()): line for line in axis.lines if line.get_marker() == "o"}
    chance = {to_hex(line.get_color()): line for line in axis.lines if line.get_linestyle() == "--"}
    for kind, colour in report.COLOURS.items():
        figures = located[kind]["attention_pool3"]
        assert dots[colour.lower()].get_xdata()[0] == pytest.approx(figures["energy"])
        uniform = located[kind]["uniform"]["energy"]
        assert chance[colour.lower()].get_xdata()[0] == pytest.approx(uniform)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["attention pool-3"]
    plt.close(drawing)


def test_the_scorecard_has_every_claim_once_with_its_verdict():
    judged = [
        claims.row("validation", "a test", "", claims.UNDECIDED),
        claims.row("better AUC", "another test", "", claims.NOT_MEASURED),
    ]
    drawing = report.scorecard(judged, "The claims")
    texts = [text.get_text().replace("\n", " ") for text in drawing.axes[0].texts]
    assert texts == [
        "“The validation AUC looks good” (a test)",
        "undecided",
        "Attention improves the AUC (another test)",
        "not measured",
    ]
    assert set(report.VERDICT_COLOURS) == set(claims.VERDICTS)
    plt.close(drawing)
    table = report.claims_table(judged)
    assert list(table["verdict"]) == ["undecided", "not measured"]
    assert table.index.tolist() == [
        ("by the tutorial", "The validation AUC looks good"),
        ("often said", "Attention improves the AUC"),
    ]


def test_the_figure_by_seed_begins_with_the_claims_whose_verdict_moves():
    index = pd.MultiIndex.from_tuples([("one", "a"), ("other", "b")], names=["claim", "test"])
    rows = [[claims.SUPPORTED, claims.SUPPORTED], [claims.UNDECIDED, claims.CONTRADICTED]]
    verdicts = pd.DataFrame(rows, index=index, columns=[3, 7])
    drawing = report.by_seed_figure(verdicts, "The claims")
    texts = [text.get_text() for text in drawing.axes[0].texts]
    assert texts == ["3", "7", "seed", "other (b)", "u", "c", "one (a)", "s", "s"]
    legend = [text.get_text() for text in drawing.legends[0].get_texts()]
    assert legend == ["s: supported", "c: contradicted", "u: undecided"]
    plt.close(drawing)
