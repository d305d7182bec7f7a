"""What leaks, what the source alone is worth, and what the series takes, on all 60,487 rows.

    python bench/full_table.py MARKING.csv [--out FOLDER]

Counts what notebook deeper/leaks_and_shortcuts counts on the sample: how many of the tutorial's
validation photographs have a relative in its training, what remembering these is worth, and how
far baselines get that see no photograph. Then seconds and memory of the bootstrap, the look-alikes
and the audit, and how they grow (`growth.py`). It needs the table of the Kaggle set, and no
photograph.
"""

import argparse
from pathlib import Path

import growth
import pandas as pd
import record
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from helpers.photographs.split import group_rows, split_groups
from helpers.photographs.table import read_marking
from helpers.scores.baselines import table_baselines
from helpers.scores.metrics import auc_table

# the tutorial's sampling and split
BENIGN = 6000
BENIGN_SEED = 42
SPLIT_SEED = 1234
OURS = 42  # the series' split_seed
BASELINES = ("source only", "metadata only")


def tutorials_split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and validation rows as the tutorial draws them, by photograph."""
    benign = table[table["target"] == 0]
    drawn = benign.sample(min(BENIGN, len(benign)), random_state=BENIGN_SEED)
    balanced = pd.concat([drawn, table[table["target"] == 1]])
    train, val = train_test_split(balanced, test_size=0.2, random_state=SPLIT_SEED)
    return train, val


def leaks(held_out: pd.DataFrame, train: pd.DataFrame) -> dict:
    """How many held-out photographs, and melanomas, are of a group that training has seen."""
    seen = held_out["group"].isin(train["group"])
    melanoma = held_out["target"] == 1
    return {
        "photographs": len(held_out),
        "leak": int(seen.sum()),
        "melanomas": int(melanoma.sum()),
        "melanomas_leak": int((seen & melanoma).sum()),
        "memory_auc": memory(held_out, train),
    }


def memory(held_out: pd.DataFrame, train: pd.DataFrame) -> float:
    """The AUC of the mean training target of each photograph's group, and of nothing else."""
    known = train.groupby("group")["target"].mean()
    score = held_out["group"].map(known).fillna(train["target"].mean())
    return float(roc_auc_score(held_out["target"], score))


def baselines(table: pd.DataFrame, side: pd.Series) -> dict[str, dict]:
    """The AUC of each baseline, pooled and within source, with intervals; "train" fits it."""
    scores = table_baselines(table.assign(side=side), split="side")
    return auc_table(scores, BASELINES).to_dict("index")


def measure(table: pd.DataFrame) -> dict:
    """What leaks from a table of marking.csv with its group and our split, and its baselines."""
    train, val = tutorials_split(table)
    tutorial = pd.Series("", index=table.index)
    tutorial[train.index] = "train"
    tutorial[val.index] = "test"
    sides = {name: table[table["split"] == name] for name in ("train", "val", "test")}
    before_test = pd.concat([sides["train"], sides["val"]])
    return {
        "leaks": {
            "tutorial": leaks(val, train),
            "our validation": leaks(sides["val"], sides["train"]),
            "our test": leaks(sides["test"], before_test),
        },
        "baselines": {
            "tutorial": baselines(table, tutorial),
            "ours": baselines(table, table["split"]),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("marking", type=Path, help="marking.csv or marking.csv.gz")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="not data/results/")
    options = parser.parse_args()
    table = read_marking(options.marking)
    table["group"] = group_rows(table)
    table["split"] = split_groups(table, OURS)
    figures = measure(table)
    figures["growth"] = growth.measure(table, growth.PARTS)
    figures["made"] = {name: part.made for name, part in growth.PARTS.items()}
    data = record.photographs_of(
        "the Kaggle set's marking.csv", table["image_id"], int(table["target"].sum())
    )
    path = record.write(
        "full_table",
        figures,
        seeds=[BENIGN_SEED, SPLIT_SEED, OURS],
        data=data,
        weights="none",
        device=torch.device("cpu"),
        folder=options.out,
    )
    print(pd.DataFrame(figures["leaks"]).T.to_string())
    for name, rows in figures["baselines"].items():
        print(f"{name}:", pd.DataFrame(rows).T.round(3).to_string(), sep="\n")
    print(pd.DataFrame(figures["growth"]).round(2).to_string(index=False))
    print(path)


if __name__ == "__main__":
    main()
