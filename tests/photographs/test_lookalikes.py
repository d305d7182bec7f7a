"""Look-alikes: drawn photographs turned, shrunk and compressed again, plain loops, real copies."""

import sys
import time
import zipfile

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.photographs import lookalikes
from helpers.photographs.sample import make_sample

TURNS = [
    None,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """60 drawn photographs of 128 pixels, two or three of them twins, in file order."""
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    make_sample(folder, seed=3, count=60)
    return sorted(folder.rglob("*.jpg"))


def pairs(found: pd.DataFrame) -> set[frozenset]:
    return {frozenset(pair) for pair in found[["first", "second"]].itertuples(index=False)}


def ids(paths) -> list[str]:
    return [path.stem for path in paths]


def twins(paths) -> set[str]:
    """Ids that stand a second time, with a suffix."""
    return {
        name.removesuffix("_downsampled") for name in ids(paths) if name.endswith("_downsampled")
    }


# the hash and the search


@pytest.mark.parametrize("number", range(8))
def test_each_of_eight_orientations_is_found_and_undone(number, drawn, tmp_path):
    for path in drawn[:6]:
        turned = Image.open(path)
        turned = turned if TURNS[number] is None else turned.transpose(TURNS[number])
        turned.save(tmp_path / "turned.png")
        found = lookalikes.find_lookalikes([path, tmp_path / "turned.png"], ["a", "b"])
        assert len(found) == 1 and found["same"][0] and found["distance"][0] <= 16
        assert found["correlation"][0] > 0.999
        back = lookalikes.orient(np.asarray(turned), int(found["orientation"][0]))
        assert np.array_equal(back, np.asarray(Image.open(path)))


def test_orient_gives_eight_different_pictures():
    pixels = np.arange(12).reshape(3, 4)
    turned = [lookalikes.orient(pixels, number) for number in range(8)]
    assert len({(picture.shape, picture.tobytes()) for picture in turned}) == 8
    assert np.array_equal(turned[0], pixels)
    assert lookalikes.orient(np.zeros((3, 4, 3)), 5).shape == (4, 3, 3)


@pytest.mark.parametrize("distance", [0, 40, 64, 100, 128])
def test_the_search_finds_what_a_plain_loop_finds(distance):
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 2**64, (40, 8, 4), dtype=np.uint64, endpoint=False)
    hashes[7], hashes[21] = hashes[3], ~hashes[3]  # 0 and 256 bits apart
    for row in range(22, 40):  # near ones, whose difference lies in one word
        hashes[row, rng.integers(8), rng.integers(4)] ^= np.uint64(rng.integers(2**32))
        hashes[row, rng.integers(8)] = hashes[row - 20, 0] ^ np.uint64(2 ** rng.integers(1, 20) - 1)
    bits = np.unpackbits(hashes.view(np.uint8).reshape(40, 8, -1), axis=-1).astype(int)
    expected = {
        (i, j, o, int((bits[i, 0] != bits[j, o]).sum()))
        for i in range(40)
        for j in range(i + 1, 40)
        for o in range(8)
    }
    found = lookalikes.near(hashes, distance)
    assert set(found) == {pair for pair in expected if pair[3] <= distance}
    assert len(found) == len(set(found)) > 0


def test_the_search_takes_no_step_of_python_for_each_pair():
    """Of 60,487 photographs there are 1.8 billion pairs, in eight orientations."""
    words = np.random.default_rng(0).integers(0, 2**64, (1000, 8, 4), np.uint64, endpoint=False)
    steps = []

    def note(frame, event, argument):
        steps.append(event)
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        assert lookalikes.near(words, 64) == []
    finally:
        sys.settrace(before)
    assert 1000 < len(steps) < 1000 * 999 / 2


# what is merged


def test_a_smaller_and_recompressed_copy_is_merged(drawn, tmp_path):
    paths = [path for path in drawn if path.stem.removesuffix("_downsampled") not in twins(drawn)][
        :8
    ]
    for path in paths:
        Image.open(path).resize((96, 96), Image.Resampling.BICUBIC).save(
            tmp_path / f"{path.stem}-c.jpg", quality=60
        )
    copies = [tmp_path / f"{path.stem}-c.jpg" for path in paths]
    found = lookalikes.find_lookalikes(paths + copies, ids(paths + copies))
    assert pairs(found[found["same"]]) == {
        frozenset([path.stem, f"{path.stem}-c"]) for path in paths
    }


def test_a_slightly_shifted_and_stretched_copy_is_merged_by_registering_it(drawn, tmp_path):
    lying = []
    for path in drawn[:8]:
        pixels = cv2.imread(str(path))
        cv2.imwrite(str(tmp_path / "cut.png"), pixels[4:126, 2:122])
        one, two = (lookalikes.thumbnail(name) for name in (path, tmp_path / "cut.png"))
        lying.append(np.corrcoef(one.ravel(), two.ravel())[0, 1])
        assert lookalikes.correlate(one, two) > lookalikes.SAME, path
    assert max(lying) < lookalikes.SAME


def test_different_drawn_lesions_are_not_merged_and_twins_are(drawn):
    found = lookalikes.find_lookalikes(drawn, ids(drawn), distance=100)
    same = {frozenset([name, f"{name}_downsampled"]) for name in twins(drawn)}
    assert len(found) > 50 and pairs(found[found["same"]]) == same and len(same) == 3
    clear = found.groupby("same")["correlation"].agg(["min", "max"])
    assert clear.loc[False, "max"] < 0.97 and clear.loc[True, "min"] > 0.99


def test_registering_is_refused_where_little_would_be_compared(drawn, monkeypatch):
    one = lookalikes.thumbnail(drawn[0])
    moved = cv2.warpAffine(
        one, np.float32([[1, 0, 14], [0, 1, 0]]), (64, 64), borderMode=cv2.BORDER_REPLICATE
    )
    assert lookalikes.correlate(one, moved) < 0.9
    monkeypatch.setattr(lookalikes, "OVERLAP", 0.5)
    assert lookalikes.correlate(one, moved) > lookalikes.SAME


def test_a_pair_that_is_near_in_several_orientations_is_one_row(tmp_path):
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    # the same in all eight orientations
    even = 120 + 60 * np.cos(9 * np.hypot(x, y)) + 40 * np.cos(7 * x) * np.cos(7 * y)
    for number in range(2):
        noise = np.random.default_rng(number).normal(0, 0.5, even.shape)
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.clip(even + noise, 0, 255))
    paths = sorted(tmp_path.iterdir())
    hashes = np.array([lookalikes.hash_all(lookalikes.thumbnail(path)) for path in paths])
    assert len(lookalikes.near(hashes, 128)) > 1
    assert len(lookalikes.find_lookalikes(paths, ids(paths), distance=128)) == 1


def test_correlation_is_at_least_numpys_and_that_of_one_colour_is_zero(drawn):
    one, two = (lookalikes.thumbnail(path) for path in drawn[:2])
    assert lookalikes.correlate(one, two) >= np.corrcoef(one.ravel(), two.ravel())[0, 1] - 1e-9
    assert lookalikes.correlate(one, one) == pytest.approx(1)
    assert (
        lookalikes.correlate(one, np.full_like(one, 7))
        == 0
        == lookalikes.correlate(np.full_like(one, 7), one)
    )


# form


def test_columns_order_and_types(drawn):
    found = lookalikes.find_lookalikes(
        drawn, pd.Series(ids(drawn), index=range(100, 160)), distance=80
    )
    assert list(found) == ["first", "second", "distance", "orientation", "correlation", "same"]
    assert found["correlation"].is_monotonic_decreasing and found["same"].equals(
        found["correlation"] > 0.98
    )
    place = {name: row for row, name in enumerate(ids(drawn))}
    assert all(
        place[one] < place[two] for one, two in zip(found["first"], found["second"], strict=True)
    )
    assert len(pairs(found)) == len(found) > 3
    assert found["distance"].max() <= 80 and found["orientation"].between(0, 7).all()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_to_compare_give_an_empty_table(count, drawn):
    found = lookalikes.find_lookalikes(drawn[:count], ids(drawn[:count]))
    assert found.empty and found["same"].dtype == bool and len(found[found["same"]]) == 0


def test_what_is_wrong_is_said(drawn, tmp_path):
    with pytest.raises(ValueError, match="2 paths, 1 different ids"):
        lookalikes.find_lookalikes(drawn[:2], ["a", "a"])
    with pytest.raises(ValueError, match="0 to 128"):
        lookalikes.find_lookalikes(drawn[:2], ["a", "b"], distance=129)
    whole = drawn[1].read_bytes()
    for content in (b"not a picture", b"", whole[: len(whole) // 2]):
        (tmp_path / "bad.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.jpg"):
            lookalikes.find_lookalikes([drawn[0], tmp_path / "bad.jpg"], ["a", "b"])


def test_a_thumbnail_is_upright_and_a_mean_of_the_pixels(drawn, tmp_path):
    """Against pillow's decoder and a mean of blocks: 128 pixels a side are halved."""
    picture = Image.open(drawn[0])
    blocks = np.asarray(picture.convert("L"), float).reshape(64, 2, 64, 2).mean(axis=(1, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # held so that its top is to be turned to the right
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    for name in ("held.png", "held.jpg"):
        turned.save(tmp_path / name, exif=exif, quality=95)
    for path in (drawn[0], tmp_path / "held.png", tmp_path / "held.jpg"):
        thumbnail = lookalikes.thumbnail(path)
        assert thumbnail.shape == (64, 64) and thumbnail.dtype == np.uint8
        assert np.abs(thumbnail - blocks).mean() < 1.5, path


# real photographs

CLOSE = """0012887 0012989, 0012290 0013594, 0000519 0011295, 0012222 0016003, 0012756 0013184,
0013109 0013163, 0012672 0012673, 0015986 0015987, 0000222 0014846, 0000183 0015311,
0000162 0014826, 0000201 0015023, 0000193 0015436"""
IDENTICAL = "0149568 9022005, 2607827 9967383, 6352565 6584579"


def numbers(text: str) -> set[frozenset]:
    return {frozenset(pair.split()) for pair in text.replace("\n", " ").split(",")}


def test_the_copies_among_real_photographs(real_data, tmp_path):
    """13 pairs of ISIC 2018 that correlate above .98 as they lie, 3 of ISIC 2020 of equal bytes.

    All were looked at, and are copies.
    """
    with zipfile.ZipFile(real_data / "melanoma-256.zip") as archive:
        archive.extractall(tmp_path)
    paths = sorted(tmp_path.rglob("*.jpg"))
    start = time.perf_counter()
    found = lookalikes.find_lookalikes(paths, ids(paths))
    print(
        f"\n{len(paths)} photographs: {len(found)} pairs proposed, {found['same'].sum()} merged, "
        f"{time.perf_counter() - start:.1f} s"
    )
    merged = {
        frozenset(name.removeprefix("ISIC_").removesuffix("_downsampled") for name in pair)
        for pair in pairs(found[found["same"]])
    }
    assert len(numbers(CLOSE)) == 13 and numbers(CLOSE) | numbers(IDENTICAL) <= merged
    table = pd.read_csv(next(tmp_path.rglob("marking.csv")), dtype=str).set_index("image_id")
    same = found[found["same"]]
    source, patient = (table[name] for name in ("source", "patient_id"))
    unrelated = patient[same["first"]].to_numpy() != patient[same["second"]].to_numpy()
    by_source = source[same["first"]].value_counts().to_dict()
    print(f"unrelated ids: {unrelated.sum()}; by source: {by_source}")
    assert len(same) == 32 and unrelated.sum() == 28  # each of the 32 was looked at: no false alarm
    assert len(found) < 400
    whole = {path.stem: path.read_bytes() for path in paths}
    equal = {frozenset(pair) for pair in pairs(found) if len({whole[name] for name in pair}) == 1}
    assert {frozenset(name.removeprefix("ISIC_") for name in pair) for pair in equal} == numbers(
        IDENTICAL
    )
