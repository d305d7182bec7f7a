"""bench/sample_teaches.py: it runs, and what it says of a seed follows from the seed's figures."""

import pandas as pd
import pytest

from helpers.photographs.sample import make_sample


def test_it_measures_both_sets_and_says_what_the_figures_rest_on(run_program, tmp_path):
    few = ["-p", "image_size", "32", "-p", "epochs", "1"]
    result = run_program("sample_teaches", "--seeds", "0", "--count", "60", *few)
    within = result["figures"]["within"]
    assert list(within) == ["with lesions", "painted over"]
    seeds = result["tables"]["sample_teaches-seeds.csv"]
    assert seeds["set"].tolist() == list(within) and seeds["seed"].tolist() == [0, 0]
    for row in seeds.to_dict("records"):
        figure = within[row["set"]]
        # of one seed the mean is the seed's
        assert figure["value"] == pytest.approx(row["within"], abs=1e-5)
        assert figure["low"] is figure["high"] is None, "of 60 photographs too few are tested"
    table = make_sample(tmp_path / "again", count=60)
    assert result["data"]["photographs"] == 60
    assert result["data"]["melanomas"] == int(table["target"].sum())
    assert result["weights"] == {"name": "none", "crc32": "", "stand_in": False}
    assert result["seeds"] == [0]
    assert result["command"].startswith("python bench/sample_teaches.py --seeds 0 --count 60")
    assert isinstance(seeds, pd.DataFrame)
