"""bench/lookalikes.py: it counts what the search finds, and leaves the merged pairs."""

import shutil

import pandas as pd

from helpers.photographs.sample import make_sample


def test_it_counts_pairs_and_equal_files(run_program, tmp_path):
    folder = tmp_path / "photographs"
    table = make_sample(folder, count=60)
    first = next(folder.rglob(f"{table['image_id'].iloc[0]}.jpg"))
    shutil.copyfile(first, first.with_name("COPY.jpg"))
    marking = pd.read_csv(folder / "marking.csv", dtype=str)
    copied = marking.iloc[[0]].assign(image_id="COPY")
    pd.concat([marking, copied]).to_csv(folder / "marking.csv", index=False)
    result = run_program("lookalikes", str(folder))
    figures = result["figures"]
    assert figures["proposed"] >= figures["merged"] >= figures["equal_bytes"] >= 1
    merged = result["tables"]["lookalikes-merged.csv"]
    assert len(merged) == figures["merged"]
    assert {table["image_id"].iloc[0], "COPY"} in [
        {pair.first, pair.second} for pair in merged.itertuples()
    ]
    assert result["data"]["photographs"] == 61
