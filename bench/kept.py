"""Figures of trained networks, a file each: what is there, and was made alike, is not made again.

For the programs that train many networks and may be stopped. A file's `shaped_by` holds all that
its network depends on; a table compares like with like, so that a file of another making is
refused before hours of training.
"""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from record import workspace

# which network: its name, what else tells it from others, and its seed
Which = tuple[str | int, ...]
# of a network, as `Which` has it -> all that shapes it, by name
ShapedBy = Callable[..., dict]


def file_of(folder: Path, *which: str | int) -> Path:
    """Where a network's figures lie.

    >>> file_of(Path("runs"), "sigmoid, with Otsu's masks", 0).name
    'sigmoid-with-otsus-masks-0.json'
    >>> file_of(Path("runs"), "no attention", "planted", 0).name
    'no-attention-planted-0.json'
    """
    words = [re.sub(r"[^a-z0-9 -]", "", str(word).lower()).replace(" ", "-") for word in which]
    return folder / f"{'-'.join(words)}.json"


def read(path: Path, expected: dict) -> dict:
    """A network's figures. SystemExit where something else than expected has shaped it."""
    return checked(path, workspace.read_json(path, "the program that trained it"), expected)


def checked(path: Path, run: dict, expected: dict) -> dict:
    """What `read` found in the file."""
    there = run.get("shaped_by", {})
    differ = []
    for name, value in expected.items():
        if there.get(name) != value:
            differ.append(f"{name} {there.get(name)!r} and not {value!r}")
    if differ:
        raise SystemExit(
            f"{path} was made with {', '.join(differ)}: name another --keep, or delete it"
        )
    return run


def read_all(folder: Path, shaped_by: ShapedBy, names: Sequence[str]) -> list[dict]:
    """All that lies in a folder of networks that a name and a seed tell apart.

    Args:
        folder: where they lie.
        shaped_by: of a name and a seed.
        names: that there are, in the order of the result; with each its seeds in order.

    Raises:
        SystemExit: something else has shaped one of them, or a file is of no such network.
    """
    runs = []
    for path in sorted(folder.glob("*.json")):
        run = workspace.read_json(path, "the program that trained it")
        if run.get("network") not in names or "seed" not in run:
            raise SystemExit(
                f"{path} is of none of this program's networks: name another --keep, or delete it"
            )
        runs.append(checked(path, run, shaped_by(run["network"], run["seed"])))
    return sorted(runs, key=lambda run: (names.index(run["network"]), run["seed"]))


def complete_and_all(
    folder: Path,
    wanted: Sequence[Which],
    shaped_by: ShapedBy,
    measure: Callable[..., dict],
    names: Sequence[str],
) -> list[dict]:
    """`complete`, then `read_all`: what earlier calls have left in the folder, too.

    Raises:
        SystemExit: as both; nothing was trained then.
    """
    read_all(folder, shaped_by, names)
    complete(folder, wanted, shaped_by, measure)
    return read_all(folder, shaped_by, names)


def complete(
    folder: Path,
    wanted: Sequence[Which],
    shaped_by: ShapedBy,
    measure: Callable[..., dict],
) -> list[dict]:
    """Make what the folder lacks, and return all that is wanted, once each, in that order.

    Args:
        folder: made where it is missing.
        wanted: the networks.
        shaped_by: what shapes such a network.
        measure: trains one, and returns its figures.

    Raises:
        SystemExit: something else has shaped a file that is there; nothing was trained then.
    """
    wanted = list(dict.fromkeys(wanted))
    folder.mkdir(parents=True, exist_ok=True)
    there = [which for which in wanted if file_of(folder, *which).exists()]
    for which in there:
        read(file_of(folder, *which), shaped_by(*which))
    runs = []
    for which in wanted:
        file = file_of(folder, *which)
        if which not in there:
            *names, seed = which
            print(f"{', '.join(map(str, names))}, seed {seed}", flush=True)
            started = time.perf_counter()
            workspace.write_json(file, measure(*which) | {"shaped_by": shaped_by(*which)})
            print(f"    {time.perf_counter() - started:.0f} s", flush=True)
        runs.append(read(file, shaped_by(*which)))
    return runs
