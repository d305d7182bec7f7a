"""What the tests share: the real material where it is at hand, and folders that no reader's files
lie in.
"""

import os
import shutil
import signal
import subprocess
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch: small tensors gain nothing from more, and lose by sharing
PROJECT = Path(__file__).resolve().parent.parent
# seconds after which something hangs, however slow and busy the machine is: each wait is for an
# event, which comes long before
PATIENCE = 1800

# who starts the tests in the background has them ignore Ctrl-C, and what they start inherits that
signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402


def commit_all(folder: Path) -> None:
    """Make a folder a git repository that holds all that is in it."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", str(folder)]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)


def checksums(photographs: Path, masks: Path | None) -> dict[str, dict[str, str]]:
    """`checksums` of dataset.json, of all files in these folders."""
    sums = {"photographs": {}, "masks": {}}
    for kind, folder in (("photographs", photographs), ("masks", masks)):
        for path in sorted(folder.iterdir()) if folder else ():
            sums[kind][path.name] = f"{zlib.crc32(path.read_bytes()):08x}"
    return sums


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return path


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder in the Kaggle layout: 40 drawn photographs with masks, and an unlabelled one."""
    folder = tmp_path_factory.mktemp("tiny") / "set"
    from helpers.photographs.sample import make_sample

    make_sample(folder, count=40, side=32)
    other = folder / "512x512-test" / "512x512-test"
    other.mkdir(parents=True)
    shutil.copy(next(folder.rglob("*.jpg")), other / "ISIC_9999999.jpg")
    return folder


@pytest.fixture(scope="session")
def tiny_zip(tiny) -> Path:
    """The same as a zip of some 3 MiB, since the client keeps nothing of its first MiB when that is
    cut.
    """
    archive = Path(shutil.make_archive(tiny.with_name("tiny"), "zip", tiny))
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr("512x512-test/noise.bin", np.random.default_rng(0).bytes(3 << 20))
    return archive


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real photographs, masks, weights and the whole table: ATTENTION_TEST_DATA, or
    `../shared/data`.
    """
    folder = Path(os.environ.get("ATTENTION_TEST_DATA") or PROJECT.parent / "shared" / "data")
    if not (folder / "melanoma-512.zip").is_file():
        pytest.skip(
            f"no real photographs in {folder}; name a folder that has them in ATTENTION_TEST_DATA"
        )
    return folder


@pytest.fixture
def folders(tmp_path, monkeypatch) -> SimpleNamespace:
    """`data` and `runs` in a temporary folder, for this test and the processes that it starts."""
    found = SimpleNamespace(data=tmp_path / "data", runs=tmp_path / "runs")
    monkeypatch.setenv("ATTENTION_DATA", str(found.data))
    monkeypatch.setenv("ATTENTION_RUNS", str(found.runs))
    return found


@pytest.fixture
def photographs(folders, tmp_path) -> dict:
    """A data set of 40 photographs, 20 of source S (red and blue swapped) and 20 of T, and some
    masks.
    """
    rng = np.random.default_rng(0)
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    lines = []
    names = {}
    for number in range(40):
        H, W = ((64, 64), (64, 96), (128, 64))[
            number % 3
        ]  # 32 divides each: area resizing is a mean of blocks
        colours = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(colours).resize((W, H), Image.Resampling.BICUBIC).save(
            images / f"X_{number}.jpg", quality=95, subsampling=0
        )
        if number % 4 == 0:
            mask = (rng.random((H, W)) < 0.5).astype(np.uint8)
            mask[: H // 2, : W // 3] = 1
            mask[-H // 4 :] = mask[:, -W // 2 :] = 0
            Image.fromarray(mask * (255 if number % 8 else 1)).save(
                masks / f"X_{number}_segmentation.png"
            )
            names[f"X_{number}"] = f"X_{number}_segmentation.png"
        lines.append(f"P_{number // 2},X_{number},{number // 2 % 2},{'S' if number < 20 else 'T'}")
    csv = tmp_path / "marking.csv"
    csv.write_text("patient_id,image_id,target,source\n" + "\n".join(lines) + "\n")
    return {
        "csv": str(csv),
        "ids": "",
        "folder": str(images),
        "masks_folder": str(masks),
        "mask_names": names,
        "masks_say": {"threshold": 0.5, "thresholds": {}, "inverted": False, "turned": {}},
        "sha256": "",  # a table that tests may change
        "bytes": sum(path.stat().st_size for path in images.iterdir()),
        "colour_order_by_source": {"S": {"order": "bgr"}, "T": {"order": "rgb"}},
        "checksums": checksums(images, masks),
    }


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> SimpleNamespace:
    """Sixty drawn photographs of 64 pixels with masks, split and cached at 36.

    `photographs()` opens the cache; `prepare(run)` leaves what 01 and 02 leave in a run's folder,
    which it returns.
    """
    import torch

    from helpers import workspace
    from helpers.photographs.cache import build_cache
    from helpers.photographs.sample import make_sample
    from helpers.photographs.split import make_split
    from helpers.training.batches import Photographs

    folder = tmp_path_factory.mktemp("made")
    make_sample(folder / "raw", count=60, side=64)
    images = folder / "raw" / "512x512-dataset-melanoma" / "512x512-dataset-melanoma"
    masks = folder / "raw" / "masks"
    ending = "_segmentation.png"
    dataset = {
        "dataset": "sample",
        "csv": str(folder / "raw" / "marking.csv"),
        "ids": "",
        "sha256": "",
        "bytes": 0,
        "folder": str(images),
        "masks_folder": str(masks),
        "mask_names": {path.name.removesuffix(ending): path.name for path in masks.iterdir()},
        "masks_say": {"threshold": 127.5, "thresholds": {}, "inverted": False, "turned": {}},
        "colour_order_by_source": {f"CLINIC_{letter}": {"order": "bgr"} for letter in "ABC"},
        "checksums": checksums(images, masks),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_DATA", str(folder / "data"))
        patch.setenv("ATTENTION_HEADLESS", "1")
        split = make_split(dataset, benign=18)
        cache = build_cache(dataset, split, image_size=32)
    used = split[split["kept"] == 1].reset_index(drop=True)
    rows = {name: np.flatnonzero(used["split"] == name) for name in ("train", "val", "test")}

    def prepare(run: str) -> Path:
        left = workspace.run_folder(run)
        split.to_csv(left / "split.csv", index=False)
        workspace.write_json(left / "dataset.json", dataset)
        workspace.write_json(left / "cache.json", cache)
        return left

    return SimpleNamespace(
        dataset=dataset,
        split=split,
        used=used,
        cache=cache,
        **rows,
        prepare=prepare,
        photographs=lambda: Photographs(cache, torch.device("cpu")),
    )


@pytest.fixture(scope="session")
def fitted(made):
    """What `train.fit` gives after two epochs at 32 pixels with the default recipe."""
    from helpers.training.loop import fit
    from helpers.training.settings import Settings

    settings = Settings(image_size=32, epochs=2, batch_size=12, precision="fp32")
    return fit(settings, made.split, made.photographs(), report=str)
