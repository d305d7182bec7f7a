"""How many pairs does the search for look-alikes propose and merge where nobody drew the lesions?

    python bench/lookalikes.py FOLDER_OR_ZIP [--out FOLDER]

The folder or zip is in the Kaggle layout. Counts the pairs that the hash proposes, those that the
correlation merges, and of these those whose files hold the same bytes, those that stand in one
group of notebook 02's split, since ids or equal bytes have told, and those that lie on two of its
sides. The merged pairs lie beside the counts, so that they can be looked at.
"""

import argparse
from pathlib import Path

import record

from helpers import workspace
from helpers.photographs.lookalikes import find_lookalikes
from helpers.photographs.sources import find_dataset
from helpers.photographs.split import make_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="a folder or zip in the Kaggle layout")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="not data/results/")
    options = parser.parse_args()
    dataset = find_dataset(options.dataset, masks="")
    split = make_split(dataset, benign=0).set_index("image_id")
    folder = Path(dataset["folder"])
    paths = {image_id: folder / name for image_id, name in split["path"].items()}
    pairs = find_lookalikes(paths.values(), paths)
    merged = pairs[pairs["same"]]
    figures = {"proposed": len(pairs), "merged": len(merged)}
    figures |= {"equal_bytes": 0, "known": 0, "torn": 0}
    for pair in merged.itertuples():
        ours = split.loc[pair.first]
        theirs = split.loc[pair.second]
        equal = paths[pair.first].read_bytes() == paths[pair.second].read_bytes()
        figures["equal_bytes"] += int(equal)
        figures["known"] += int(ours["group"] == theirs["group"])
        figures["torn"] += int(ours["split"] != theirs["split"])
    print(figures)
    path = record.write(
        "lookalikes",
        figures,
        seeds=[],
        data=record.photographs_of(
            Path(dataset["dataset"]).name, split.index, int(split["target"].sum())
        ),
        weights="none",
        device=workspace.choose_device("cpu"),
        folder=options.out,
        tables={"merged": merged.drop(columns="same")},
    )
    print(path)


if __name__ == "__main__":
    main()
