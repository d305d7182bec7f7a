"""Fetch photographs from the ISIC Archive: no account, 256 pixels, licences and attributions kept.

What arrives is laid out as the Kaggle set is, so that all notebooks take it as they take that. The
archive's interface is described at https://api.isic-archive.com/api/docs/swagger/.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pandas as pd
import requests

from helpers import workspace
from helpers.photographs import reading
from helpers.photographs.split import group_rows, take_groups

API = "https://api.isic-archive.com/api/v2"
# what an empty query asks for, and the masks that were drawn for it: address and MD5
QUERY = 'copyright_license:"CC-0" AND image_type:dermoscopic'
COLLECTION = "Challenge 2018: Task 1-2: Training"
MASKS = (
    "https://isic-archive.s3.amazonaws.com/challenges/2018/ISIC2018_Task1_Training_GroundTruth.zip"
    "#md5=ee5e5db7771d48fa2613abc7cb5c24e2"
)
VERSION = 1  # of the folders; raised when the same query comes to be laid out otherwise
SIDE = 256  # of the squares, in pixels: the longer side of the archive's thumbnails
PAGE = 100  # results a page, the most that the archive gives
CONNECTIONS = 8
PATIENCE = 60  # seconds without a byte after which a connection counts as broken off
LONGEST = 300  # seconds that the archive may ask to wait before the reader is told instead
ATTEMPTS = 4  # at a file whose address expires, or that arrives damaged or cut
TABLE = [
    *("patient_id", "lesion_id", "image_id", "target", "source"),
    *("sex", "age_approx", "anatom_site_general_challenge"),
]
LICENCES = ["image_id", "licence", "attribution"]
LICENCES_FILE = "licences.csv"
SPREADSHEET = re.compile(r"^[=+@\s-]+")  # how no source may begin


class IsicFailed(workspace.NotFetched):
    """The ISIC Archive did not give what was asked for; the message says why and what to do."""


class Patient(requests.adapters.Retry):
    """Waits as long as the archive asks, and tells the reader where that is long."""

    def get_retry_after(self, response) -> float | None:
        seconds = super().get_retry_after(response)
        if seconds and seconds > LONGEST:
            raise IsicFailed(
                f"the ISIC Archive asks to wait {seconds:.0f} seconds ({response.status}). Run "
                "this again then: it goes on from what has arrived"
            )
        return seconds


AGAIN = Patient(
    8,
    connect=2,
    read=ATTEMPTS,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET",),
    backoff_factor=0.5,
    backoff_jitter=0.5,
    raise_on_status=False,
)


def fetch(query: str = "", count: int = 0, *, seed: int = 42) -> Path:
    """The folder of the photographs that a query finds in the archive, in the Kaggle layout.

    They are fetched once; what has arrived of a fetch that was cut off is kept. Photographs are
    squashed to squares of SIDE pixels, and masks, which come with the empty query alone, with them.
    `marking.csv` has a column `lesion_id` more than Kaggle's; `licences.csv` names the licence and
    the attribution of every photograph.

    Args:
        query: in the archive's own language, such as `diagnosis_3:"Melanoma*"`; "" asks for
            QUERY in COLLECTION: some 2,600 photographs.
        count: how many photographs to take at most, in whole groups; 0 takes all.
        seed: draws them.

    Raises:
        IsicFailed: the archive does not give it.
        ValueError: `count` is smaller than every group.
        OSError: the disk has no room.
    """
    base = os.environ.get("ATTENTION_ISIC_API", API).rstrip("/")
    asked = json.dumps([VERSION, base, query, count, seed if count else 0])
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    name = "query" if query else "task-1-2"
    folder = workspace.data_folder() / "raw" / "isic" / f"{name}-{digest}"
    arrived = folder.with_name(f"{folder.name}.download")
    with workspace.locked(folder):
        if folder.is_dir():
            return folder
        with Archive(base) as archive:
            found = archive.search(query, enough=10 * count)
            table = choose(found, query, count, seed)
            has_room(arrived, table, masks=not query)
            table = archive.photographs(table, arrived / "photographs")
            if not query:
                archive.masks(set(table["image_id"]), arrived / "masks")
        check_both(table, query)
        with workspace.saying_what_to_do(folder):
            table[TABLE].to_csv(arrived / "marking.csv", index=False)
            table[LICENCES].to_csv(arrived / LICENCES_FILE, index=False)
            workspace.move(arrived, folder)
    return folder


class Archive:
    """The archive behind a base address, asked by at most CONNECTIONS at a time."""

    def __init__(self, base: str):
        self.base = base
        self.session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=AGAIN)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *error) -> None:
        self.session.close()

    def get(self, address: str, *, stream: bool = False, **more) -> requests.Response:
        """An answer of any status. Raises requests.RequestException where none comes whole."""
        return self.session.get(address, timeout=PATIENCE, stream=stream, **more)

    def json(self, address: str, **parameters: str | int) -> dict:
        """What the archive answers to a question. Raises IsicFailed for anything but JSON."""
        try:
            answer = self.get(address, params=parameters)
        except requests.RequestException as error:
            raise no_answer(address, error) from None
        kind = answer.headers.get("Content-Type", "nothing")
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.status_code == 400:
            raise IsicFailed(
                f"the ISIC Archive does not take the query {parameters.get('query')!r} (400). It "
                f"says: {words_of(answer, content)}. isic_query is in its own language, such as "
                "diagnosis_1:Malignant AND image_type:dermoscopic"
            )
        if answer.status_code >= 400:
            raise IsicFailed(
                f"the ISIC Archive answers {answer.status_code} to {answer.url.split('?')[0]}: "
                f"{words_of(answer, content)}. Run this again later: it goes on from what has "
                "arrived"
            )
        if not isinstance(content, dict):
            raise IsicFailed(
                f"{answer.url.split('?')[0]} answered {kind} where JSON was expected: a network's "
                "login page or a proxy's may stand in the archive's place. Sign in there, or set "
                "ATTENTION_ISIC_API to another address of the archive"
            )
        return content

    def pages(self, address: str, **parameters: str | int) -> Iterator[dict]:
        """All results of a question, page after page."""
        page = self.json(address, limit=PAGE, **parameters)
        total = page.get("count")
        with workspace.progress("searching", total=total) as bar:
            while True:
                for result in page.get("results", []):
                    bar.update()
                    yield result
                if not page.get("next"):
                    return
                page = self.json(page["next"])

    def search(self, query: str, *, enough: int) -> pd.DataFrame:
        """The rows of what a query finds; where `enough` is not 0, of some so many results."""
        more = {"query": query}
        if not query:
            more = {"query": QUERY, "collections": self.collection()}
        rows = {}
        for result in self.pages(f"{self.base}/images/search/", **more):
            row = row_of(result)
            rows.setdefault(row["image_id"], row)  # another page may bring it again
            if enough and len(rows) >= enough:
                targets = {one["target"] for one in rows.values()}
                if {0, 1} <= targets:
                    break
        if not rows:
            raise IsicFailed(
                f"the ISIC Archive finds nothing for {more['query']!r}, expected melanomas and "
                "benign lesions: look the values of its fields up, or leave isic_query empty"
            )
        return pd.DataFrame(rows.values())

    def collection(self) -> int:
        """The number of COLLECTION."""
        names = {}
        for found in self.pages(f"{self.base}/collections/"):
            names[found["name"]] = found["id"]
        if COLLECTION not in names:
            raise IsicFailed(
                f"the ISIC Archive has no collection {COLLECTION!r} any more, among "
                f"{len(names)} others: name what to fetch in isic_query"
            )
        return names[COLLECTION]

    def photographs(self, table: pd.DataFrame, folder: Path) -> pd.DataFrame:
        """Fetch, check and squash the photographs of a table into a folder.

        Returns:
            The rows whose photograph the archive has.

        Raises:
            IsicFailed: some did not arrive, or not whole.
        """
        folder.mkdir(parents=True, exist_ok=True)
        addresses = dict(zip(table["image_id"], table["url"], strict=True))
        gone = []

        def one(image_id: str) -> None:
            path = folder / f"{image_id}.jpg"
            if not is_square(path):
                content = self.thumbnail(image_id, addresses[image_id])
                if content is None:
                    gone.append(image_id)
                else:
                    write_square(path, content)

        for_each(one, list(addresses), "photographs")
        if gone:
            print(f"{len(gone)} photographs are left out: the archive has no thumbnail of them")
        return table[~table["image_id"].isin(gone)].reset_index(drop=True)

    def thumbnail(self, image_id: str, address: str) -> bytes | None:
        """A photograph of the archive, whole; None where it has none.

        Its addresses are signed and expire: then a new one is asked for.
        """
        wrong = ""
        for _ in range(ATTEMPTS):
            if not address:
                return None
            try:
                answer = self.get(address)
            except requests.RequestException as error:
                wrong = str(no_answer(address, error))
                continue
            if answer.status_code in (404, 410):
                return None
            if answer.status_code >= 400:
                wrong = f"{image_id}: the archive answers {answer.status_code}"
                address = row_of(self.json(f"{self.base}/images/{image_id}/"))["url"]
                continue
            try:
                reading.decode(Path(f"{image_id}.jpg"), answer.content, None)
            except ValueError as error:
                wrong = f"what arrived is not whole: {error}"
                continue
            return answer.content
        raise IsicFailed(
            f"{image_id} did not arrive in {ATTEMPTS} attempts. {wrong}. Run this again: it goes "
            "on from what has arrived"
        )

    def masks(self, image_ids: set[str], folder: Path) -> None:
        """Fetch the masks of MASKS and squash those of these photographs into a folder."""
        address, _, md5 = os.environ.get("ATTENTION_ISIC_MASKS", MASKS).partition("#md5=")
        packed = folder.with_name("masks.zip")
        if not packed.exists():
            self.download(address, packed, md5)
        with zipfile.ZipFile(packed) as zipped:
            members = {}
            for name in zipped.namelist():
                image_id, is_mask, _ = Path(name).name.partition("_segmentation.png")
                if is_mask and image_id in image_ids:
                    members[image_id] = name

        if members:
            folder.mkdir(exist_ok=True)

        def one(image_id: str) -> None:
            path = folder / f"{image_id}_segmentation.png"
            if path.exists():
                return
            with zipfile.ZipFile(packed) as zipped:  # each thread its own place in the file
                content = zipped.read(members[image_id])
            write_mask(path, content)

        for_each(one, list(members), "masks")
        packed.unlink()

    def download(self, address: str, path: Path, md5: str) -> None:
        """Fetch a file, going on from what has arrived of it; its MD5 must be this one.

        Raises:
            IsicFailed: it is not there, not whole (what has arrived is kept), or has another MD5.
        """
        part = path.with_name(f"{path.name}.part")
        for _ in range(ATTEMPTS):
            start = part.stat().st_size if part.exists() else 0
            try:
                answer = self.get(address, stream=True, headers={"Range": f"bytes={start}-"})
            except requests.RequestException as error:
                raise no_answer(address, error) from None
            if answer.status_code == 416:  # all of it had arrived
                break
            if answer.status_code >= 400:
                raise IsicFailed(
                    f"{address} answers {answer.status_code}: the masks are not there. Set "
                    "ATTENTION_ISIC_MASKS to another address of them, as ADDRESS#md5=SUM"
                )
            if answer.status_code != 206:
                start = 0
            if receive(answer, part, start):
                break
        else:
            raise IsicFailed(
                f"{address} is not whole after {ATTEMPTS} attempts: the connection broke off each "
                f"time, {part.stat().st_size:,} bytes have arrived and are kept. Run this again: "
                "it goes on from there"
            )
        found = hashlib.md5(part.read_bytes(), usedforsecurity=False).hexdigest()
        if found != md5:
            part.unlink()
            raise IsicFailed(
                f"what came from {address} has the MD5 {found}, expected {md5}; it was removed. "
                "Run this again. If it comes again, your network may put a page of its own there"
            )
        os.replace(part, path)


def receive(answer: requests.Response, part: Path, start: int) -> bool:
    """Write what an answer brings into a file, from byte `start` on; whether all of it came."""
    total = start + int(answer.headers.get("Content-Length", 0))
    options = {"initial": start, "unit": "B", "unit_scale": True}
    with (
        workspace.saying_what_to_do(part),
        part.open("r+b" if start else "wb") as file,
        workspace.progress(part.stem, total=total or None, **options) as bar,
        contextlib.suppress(requests.RequestException),
    ):
        file.seek(start)
        for piece in answer.iter_content(1 << 18):
            file.write(piece)
            bar.update(len(piece))
        return True
    return False


def for_each(work: Callable[[str], None], names: list[str], what: str) -> None:
    """Do something for each name, CONNECTIONS at a time, with a bar; the first error ends it."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            for _ in workspace.progress(what, pool.map(work, names), len(names)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


def row_of(result: dict) -> dict:
    """A row of the table from one of the archive's results; `target` is None where it is neither.

    >>> row = row_of({"isic_id": "ISIC_1", "metadata": {"clinical": {"diagnosis_1": "Benign"}}})
    >>> row["image_id"], row["target"], row["patient_id"], row["source"]
    ('ISIC_1', 0, None, 'unknown')
    """
    clinical = result.get("metadata", {}).get("clinical", {})
    thumbnail = result.get("files", {}).get("thumbnail_256", {})
    attribution = result.get("attribution") or "unknown"
    return {
        "image_id": result["isic_id"],
        "patient_id": clinical.get("patient_id"),
        "lesion_id": clinical.get("lesion_id"),
        "target": target_of(clinical),
        "source": SPREADSHEET.sub("", attribution)[:100] or "unknown",
        "sex": clinical.get("sex"),
        "age_approx": clinical.get("age_approx"),
        "anatom_site_general_challenge": clinical.get("anatom_site_general"),
        "licence": result.get("copyright_license", "unknown"),
        "attribution": attribution,
        "url": thumbnail.get("url", ""),
        "bytes": thumbnail.get("size", 0),
    }


def target_of(clinical: dict) -> int | None:
    """1 for every kind of melanoma, 0 for what is benign, None for all else.

    The archive's diagnosis has up to five levels, from "Malignant" to a kind of melanoma.

    >>> target_of({"diagnosis_1": "Malignant", "diagnosis_3": "Melanoma in situ"})
    1
    >>> target_of({"diagnosis_1": "Malignant", "diagnosis_3": "Basal cell carcinoma"})
    """
    kind = clinical.get("diagnosis_1", "")
    if kind == "Benign":
        return 0
    levels = [str(clinical.get(f"diagnosis_{level}", "")) for level in range(2, 6)]
    if kind == "Malignant" and any("melanoma" in level.casefold() for level in levels):
        return 1
    return None


def choose(found: pd.DataFrame, query: str, count: int, seed: int) -> pd.DataFrame:
    """The rows to fetch, at most `count`; what is left out, and non-commercial, is printed."""
    table = found[found["target"].notna()].astype({"target": int}).reset_index(drop=True)
    if len(table) < len(found):
        print(
            f"{len(found) - len(table)} of {len(found)} photographs are left out: they show "
            "neither a melanoma nor a benign lesion"
        )
    check_both(table, query)
    table = table.assign(group=group_rows(table))
    table = take_groups(table, count, seed, parameter="isic_count")
    kinds = collections.Counter(table["licence"])
    print("licences: " + ", ".join(f"{kind} {rows:,}" for kind, rows in kinds.most_common()))
    if any("NC" in kind for kind in kinds):
        print("CC BY-NC: with attribution (see licences.csv), and not for commercial use")
    return table


def check_both(table: pd.DataFrame, query: str) -> None:
    """Raises IsicFailed unless a table has melanomas and benign lesions."""
    melanomas = int((table["target"] == 1).sum())
    if 0 < melanomas < len(table):
        return
    raise IsicFailed(
        f"the query {query or QUERY!r} finds {melanomas} melanomas and {len(table) - melanomas} "
        "benign lesions: a classifier needs both. Join two queries by OR, such as "
        '(diagnosis_3:"Melanoma*" OR diagnosis_1:Benign) AND image_type:dermoscopic'
    )


def has_room(folder: Path, table: pd.DataFrame, *, masks: bool) -> None:
    """Say what will come, and raise OSError where the disk has no room for it."""
    photographs = int(table["bytes"].sum())
    needed = 3 * photographs + (100_000_000 if masks else 0)  # squares of less compression
    folder.mkdir(parents=True, exist_ok=True)
    free = workspace.free_space(folder)
    if needed > free:
        raise OSError(
            f"{len(table):,} photographs need {needed / 1e6:,.0f} MB in {folder.parent}, where "
            f"{free / 1e6:,.0f} MB are free: make room, set ATTENTION_DATA to a folder on a "
            "larger disk, or lower isic_count"
        )
    and_masks = ", and 27 MB of masks" if masks else ""
    print(
        f"{len(table):,} photographs of the ISIC Archive, {photographs / 1e6:,.0f} MB{and_masks}: "
        f"into {folder.parent}",
        flush=True,
    )


def is_square(path: Path) -> bool:
    """Whether a photograph lies there, whole."""
    if not path.exists():
        return False
    try:
        reading.read_photograph(path)
    except ValueError:
        return False
    return True


def write_square(path: Path, content: bytes) -> None:
    """Squash a photograph to a square and write it as a JPEG that loses little."""
    pixels = reading.decode(path, content, None)  # [H, W, 3], red first
    pixels = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    _, coded = cv2.imencode(
        ".jpg",
        cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, 95],
    )
    write_whole(path, coded.tobytes())


def write_whole(path: Path, content: bytes) -> None:
    """Write one of many files, whole or not at all."""
    beside = path.with_suffix(".part")
    with workspace.saying_what_to_do(path):
        beside.write_bytes(content)
        os.replace(beside, path)


def write_mask(path: Path, content: bytes) -> None:
    """Squash a mask as its photograph was: white where half of a pixel or more is lesion."""
    lesion = reading.decode(path, content, None)[..., 0]  # [H, W], 0 or 255
    lesion = cv2.resize(lesion, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    _, coded = cv2.imencode(".png", ((lesion >= 128) * 255).astype("uint8"))
    write_whole(path, coded.tobytes())


def no_answer(address: str, error: requests.RequestException) -> IsicFailed:
    """What a failed request means for the reader."""
    host = requests.utils.urlparse(address).netloc
    return IsicFailed(
        f"{host} does not answer ({reason(error)}). Check the network (on Kaggle the notebook's "
        "Internet switch) and run this again: it goes on from what has arrived. Without a "
        "network, set dataset to 'sample'"
    )


def reason(error: requests.RequestException) -> str:
    """The innermost cause of a failed request, in a few words."""
    text = str(error)
    known = {
        "Name or service not known": "its name is unknown here",
        "name resolution": "its name is unknown here",
        "refused": "connection refused",
        "timed out": f"no answer in {PATIENCE} seconds",
        "too many": "errors without an end",
    }
    for words, meaning in known.items():
        if words in text:
            return meaning
    return type(error).__name__


def words_of(answer: requests.Response, content: object) -> str:
    """What an error's answer says, in at most 300 characters."""
    if isinstance(content, dict):
        said = content.get("detail") or content.get("message") or content
        text = said if isinstance(said, str) else json.dumps(said)
    else:
        text = re.sub(r"<[^>]*>", " ", answer.text)
    return " ".join(text.split())[:300] or "nothing more"


def terms_of(folder: Path) -> dict[str, str]:
    """`licence` and `attribution` of dataset.json, for a folder that `fetch` made."""
    table = pd.read_csv(folder / LICENCES_FILE, dtype=str, keep_default_na=False)
    kinds = table["licence"].value_counts()
    holders = sorted(set(table["attribution"]))
    named = "; ".join(itertools.islice(holders, 20))
    return {
        "licence": ", ".join(f"{kind}: {rows:,} photographs" for kind, rows in kinds.items()),
        "attribution": f"{named}. Of every photograph: {LICENCES_FILE}",
    }
