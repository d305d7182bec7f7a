"""The fetch from the ISIC Archive, against one on this machine that answers as its server does."""

import errno
import os

import cv2
import numpy as np
import pandas as pd
import pytest
import requests

from helpers import workspace
from helpers.photographs import isic, sources
from helpers.photographs.sample import make_sample
from helpers.photographs.split import make_split
from tests.conftest import files
from tests.loopback_isic import LoopbackIsic, Photograph, archive_of

PHOTOGRAPHS = 120


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder of drawn photographs in the Kaggle layout, and its sources of swapped colours."""
    folder = tmp_path_factory.mktemp("drawn") / "set"
    table = make_sample(folder, count=PHOTOGRAPHS, side=64)
    photographs, names = sources.find_photographs(table["image_id"], folder)
    orders = sources.colour_orders(table, photographs, names)
    return folder, {name for name, one in orders.items() if one["order"] == "bgr"}


@pytest.fixture
def archive(drawn, folders, monkeypatch):
    """The archive, which the fetch is led to; it waits no longer between attempts than it must."""
    folder, swapped = drawn
    with archive_of(folder, swapped, folder / "masks") as found:
        found.page = 50
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(isic, "AGAIN", isic.AGAIN.new(backoff_factor=0, backoff_jitter=0))
        yield found


def test_what_is_fetched_is_a_data_set_that_the_series_takes(archive, folders):
    found = sources.find_dataset("isic")
    assert archive.names().count("search") == 3, "120 results, 50 a page"
    assert archive.count("thumbnail") == PHOTOGRAPHS and archive.count("masks") == 1
    assert found["rows"] == PHOTOGRAPHS and found["masks"] > 0
    assert found["colour_order"] == "rgb"
    assert "CC-0" in found["licence"] and "CLINIC_A" in found["attribution"]
    split = make_split(found)
    assert split.groupby("group")["split"].nunique().max() == 1
    photograph = next((folders.data / "raw" / "isic").rglob("*.jpg"))
    assert cv2.imread(str(photograph)).shape == (256, 256, 3)


def test_photographs_and_masks_are_squashed_alike(archive, drawn):
    folder = isic.fetch()
    original, swapped = drawn
    table = pd.read_csv(original / "marking.csv", dtype=str)
    by_id = {path.stem: path for path in original.rglob("*.jpg")}
    masked = sorted((folder / "masks").glob("*.png"))
    assert masked
    for path in masked[:10]:
        image_id = path.name.removesuffix("_segmentation.png")
        ours = cv2.imread(str(folder / "photographs" / f"{image_id}.jpg"))
        theirs = cv2.resize(cv2.imread(str(by_id[image_id])), (256, 256))
        source = table.set_index("image_id").loc[image_id, "source"]
        if source in swapped:
            theirs = theirs[..., ::-1]
        assert np.abs(ours.astype(int) - theirs).mean() < 12
        mask = cv2.imread(str(path), 0)
        drawn_mask = cv2.imread(str(original / "masks" / path.name), 0)
        wanted = cv2.resize(drawn_mask, (256, 256)) > 127
        assert set(np.unique(mask)) <= {0, 255}
        assert ((mask > 0) == wanted).mean() > 0.98


def test_a_second_run_asks_for_nothing(archive):
    folder = isic.fetch()
    asked = len(archive.requests)
    assert isic.fetch() == folder and len(archive.requests) == asked


def test_cuts_and_an_expired_address_are_nothing_to_the_reader(archive):
    archive.faults.cuts = 2
    archive.faults.damaged = 1
    archive.faults.cut_masks = 1
    expired = sorted(archive.photographs)[0]
    archive.faults.expired = {expired}
    folder = isic.fetch()
    assert len(list((folder / "photographs").glob("*.jpg"))) == PHOTOGRAPHS
    assert archive.count("thumbnail") == PHOTOGRAPHS + 4
    assert archive.count("image") == 1 and archive.count("masks") == 2
    assert not [name for name in files(folder) if name.endswith((".part", ".zip"))]


def test_too_many_requests_and_an_overloaded_server_are_waited_for(archive):
    archive.faults.busy = 1
    archive.faults.broken = 2
    isic.fetch()
    assert archive.count("thumbnail") == PHOTOGRAPHS


def test_a_long_wait_is_told_and_not_waited_for(archive):
    archive.faults.busy = 1000
    archive.faults.wait = "3600"
    with pytest.raises(isic.IsicFailed, match="3600"):
        isic.fetch()


def test_what_has_arrived_of_an_interrupted_fetch_is_kept(archive, folders):
    last = sorted(archive.photographs)[-1]
    whole = archive.photographs[last].thumbnail
    archive.photographs[last].thumbnail = b"no photograph"
    with pytest.raises(isic.IsicFailed, match=last):
        isic.fetch()
    kept = [name for name in files(folders.data) if name.endswith(".jpg")]
    archive.photographs[last].thumbnail = whole
    archive.requests.clear()
    folder = isic.fetch()
    assert archive.count("thumbnail") == PHOTOGRAPHS - len(kept) < PHOTOGRAPHS / 2
    assert len(list((folder / "photographs").glob("*.jpg"))) == PHOTOGRAPHS


def test_masks_that_break_off_each_time_keep_what_arrived(archive, folders):
    """Formerly the half that had arrived was taken for another file, and removed."""
    archive.faults.cut_masks = isic.ATTEMPTS
    with pytest.raises(isic.IsicFailed, match=f"{isic.ATTEMPTS} attempts") as told:
        isic.fetch()
    assert "MD5" not in str(told.value)
    [part] = folders.data.rglob("masks.zip.part")
    kept = part.read_bytes()
    assert kept and archive.zip.startswith(kept)
    assert f"{len(kept):,} bytes" in str(told.value)
    archive.requests.clear()
    folder = isic.fetch()
    assert archive.count("thumbnail") == 0 and archive.count("masks") == 1
    assert list((folder / "masks").glob("*.png"))


def test_a_photograph_without_a_thumbnail_is_left_out_and_counted(archive, capsys):
    first, second = sorted(archive.photographs)[:2]
    archive.photographs[first].thumbnail = b""
    archive.faults.gone = {second}
    folder = isic.fetch()
    table = pd.read_csv(folder / "marking.csv", dtype=str)
    assert len(table) == PHOTOGRAPHS - 2 and not table["image_id"].isin([first, second]).any()
    assert "2 photographs are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("diagnosis_9:Melanoma", ["diagnosis_9", "400"]),
        ("diagnosis_1:Benign", [f"{0} melanomas", "benign"]),
        ("diagnosis_1:Malignant", ["0 benign", "melanomas"]),
        ("diagnosis_1:Nothing", ["finds nothing", "diagnosis_1:Nothing"]),
    ],
)
def test_a_query_that_cannot_be_answered_is_told(archive, folders, query, names):
    with pytest.raises(isic.IsicFailed) as told:
        isic.fetch(query)
    assert all(name in str(told.value) for name in names), told.value
    assert archive.count("thumbnail") == 0


def test_a_login_page_in_place_of_the_archive_is_told(archive):
    archive.faults.html = True
    with pytest.raises(isic.IsicFailed, match="text/html") as told:
        isic.fetch()
    assert "ATTENTION_ISIC_API" in str(told.value)


def test_no_network_is_told(folders, monkeypatch):
    monkeypatch.setenv("ATTENTION_ISIC_API", "http://127.0.0.1:9/api/v2")
    monkeypatch.setattr(isic, "AGAIN", isic.AGAIN.new(backoff_factor=0, backoff_jitter=0))
    with pytest.raises(isic.IsicFailed, match=r"127\.0\.0\.1:9.*sample"):
        isic.fetch()


def test_masks_of_other_bytes_are_removed_and_told(archive, monkeypatch, folders):
    address = archive.environment()["ATTENTION_ISIC_MASKS"].partition("#")[0]
    monkeypatch.setenv("ATTENTION_ISIC_MASKS", f"{address}#md5={'0' * 32}")
    with pytest.raises(isic.IsicFailed, match="MD5"):
        isic.fetch()
    assert not [name for name in files(folders.data) if "masks.zip" in name]


def test_a_full_disk_is_told_before_the_first_photograph(archive, monkeypatch):
    monkeypatch.setattr(isic.workspace, "free_space", lambda path: 1_000)  # no disk is so small
    with pytest.raises(OSError, match="ATTENTION_DATA"):
        isic.fetch()
    assert archive.count("thumbnail") == 0


def test_some_of_a_query_are_whole_groups_of_both_classes(archive):
    folder = isic.fetch(count=40)
    table = pd.read_csv(folder / "marking.csv", dtype=str)
    assert len(table) <= 40 and table["target"].nunique() == 2
    assert archive.count("thumbnail") == len(table)


def photograph(isic_id: str, **clinical) -> Photograph:
    """One whose pixels are its own: equal ones would be copies of one photograph."""
    pixels = np.full((192, 256, 3), (120, 150, 200), np.uint8)
    pixels[: int(isic_id[-3:]) % 190, :100] = 30
    pixels[50:150, : int(isic_id[-3:]) % 190] = 60
    return Photograph(isic_id, cv2.imencode(".jpg", pixels)[1].tobytes(), clinical)


@pytest.fixture
def small(folders, monkeypatch):
    """An archive of 36 photographs: lesions across patients, other kinds, other licences."""
    benign = {"diagnosis_1": "Benign", "diagnosis_3": "Nevus"}
    kinds = ["Melanoma, NOS", "Melanoma in situ", "Melanoma Invasive", "Melanoma metastasis"]
    found = [photograph(f"ISIC_1{n:02d}", **benign, patient_id=f"IP_{n // 2}") for n in range(20)]
    found += [
        photograph(f"ISIC_2{n:02d}", diagnosis_1="Malignant", diagnosis_3=kinds[n % 4])
        for n in range(12)
    ]
    found += [
        photograph("ISIC_300", diagnosis_1="Malignant", diagnosis_3="Basal cell carcinoma"),
        photograph("ISIC_301", diagnosis_1="Indeterminate"),
        photograph("ISIC_302"),
    ]
    # one lesion, seen at two patients' ids, in two collections
    found[0].clinical["lesion_id"] = found[30].clinical["lesion_id"] = "IL_7"
    found[30].collections = (1, 99)
    for one in found[:5]:
        one.licence = "CC-BY-NC"
    with LoopbackIsic(found, {}) as archive:
        for name, value in archive.environment().items():
            monkeypatch.setenv(name, value)
        yield archive


def test_every_melanoma_counts_and_what_is_neither_is_left_out(small, capsys):
    folder = isic.fetch("image_type:dermoscopic")
    table = pd.read_csv(folder / "marking.csv", dtype=str)
    assert table["target"].tolist().count("1") == 12 and len(table) == 32
    assert "3 of 35" in capsys.readouterr().out


def test_a_disk_that_is_full_at_the_end_is_told_with_what_to_do(small, folders, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_csv", full)
        with pytest.raises(workspace.CannotWrite, match="the disk is full.*set ATTENTION_DATA"):
            isic.fetch("image_type:dermoscopic")
    asked = small.count("thumbnail")
    isic.fetch("image_type:dermoscopic")
    assert small.count("thumbnail") == asked


def test_a_count_smaller_than_any_group_is_refused_by_its_name():
    patients = [f"IP_{number // 2}" for number in range(20)]
    found = pd.DataFrame({"image_id": [f"ISIC_{n}" for n in range(20)], "patient_id": patients})
    found["target"] = [number // 2 % 2 for number in range(20)]
    with pytest.raises(ValueError, match="isic_count is 1 rows.* has 2"):
        isic.choose(found, "a query", 1, 0)


def test_licences_reach_the_reader(small, capsys):
    found = sources.find_dataset("isic", isic_query="image_type:dermoscopic")
    said = capsys.readouterr().out
    assert "CC-BY-NC 5" in said and "not for commercial use" in said
    assert "CC-BY-NC: 5" in found["licence"] and "CC-0: 27" in found["licence"]
    table = pd.read_csv(isic.fetch("image_type:dermoscopic") / isic.LICENCES_FILE, dtype=str)
    assert len(table) == 32 and table["attribution"].eq("Clinic A").all()


def test_a_lesion_and_a_patient_stay_on_one_side(small):
    found = sources.find_dataset("isic", isic_query="image_type:dermoscopic")
    split = make_split(found).set_index("image_id")
    assert split.loc["ISIC_100", "group"] == split.loc["ISIC_210", "group"], "one lesion"
    assert split.loc["ISIC_100", "group"] == split.loc["ISIC_101", "group"], "one patient"
    assert split.groupby("group")["split"].nunique().max() == 1


def test_real_photographs_keep_their_colours(real_data, folders, monkeypatch, tmp_path):
    folder = tmp_path / "real"
    import zipfile

    with zipfile.ZipFile(real_data / "melanoma-512.zip") as zipped:
        table = pd.read_csv(zipped.open("marking.csv"), dtype=str)
        some = pd.concat(rows.head(12) for _, rows in table.groupby("target"))
        members = {name.rsplit("/", 1)[-1]: name for name in zipped.namelist()}
        for image_id in some["image_id"]:
            zipped.extract(members[f"{image_id}.jpg"], folder)
    some.to_csv(folder / "marking.csv", index=False)
    with archive_of(folder, set(some["source"])) as archive:
        for name, value in archive.environment().items():
            monkeypatch.setenv(name, value)
        found = sources.find_dataset("isic")
    assert found["colour_order"] == "rgb"
    assert {one["order"] for one in found["colour_order_by_source"].values()} == {"rgb"}


def test_an_answer_that_is_no_json_has_its_words_told():
    answer = requests.Response()
    answer._content = b"<h1>Bad\n gateway</h1>"  # noqa: SLF001 - how requests holds a body
    assert isic.words_of(answer, None) == "Bad gateway"
