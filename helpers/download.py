"""Find the data set of notebook 01 and check it: the sample, one from Kaggle, or a folder or zip in the Kaggle layout.

Layout: `marking.csv` and, somewhere beside or below it, `<image_id>.jpg`; the Kaggle set keeps its photographs in
`512x512-dataset-melanoma/512x512-dataset-melanoma/`, and unlabelled ones, unused here, in `512x512-test/`.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import cv2
import requests

from helpers import archives, hosts, pixel_cache, preprocess, sample, workspace

LICENCES = "ISIC 2019 and 2020 photographs: CC BY-NC 4.0; ISIC 2017 and 2018 (Task 1): CC-0; see data/README.md"
KAGGLE_DATASET = "shonenkov/melanoma-merged-external-data-512x512-jpeg"
PATIENCE = 60  # seconds without a byte after which an answer counts as broken off; Kaggle's client would wait for ever
AGAIN = requests.adapters.Retry(3, connect=0, read=False, status_forcelist=(500, 502, 503, 504), allowed_methods=None,
                                backoff_factor=0.5, respect_retry_after_header=False, raise_on_status=False)
REFUSED = {  # why Kaggle did not give a data set, and what to do: by status, or in words
    "none": "No credentials for Kaggle were found, so {name} was not downloaded. Create a token under API at "
            "https://www.kaggle.com/settings, save it as ~/.kaggle/access_token, type chmod 600 ~/.kaggle/access_token "
            "and run this again; 01_download.ipynb lists other ways. On Kaggle, Add Input needs none.",
    401: "Kaggle did not accept the credentials in {found}, so {name} was not downloaded: they are mistyped, expired "
         "or revoked. Create new ones under API at https://www.kaggle.com/settings and put them there.",
    403: "Kaggle does not give {name} to this account (403; credentials in {found}). Sign in, open {page}, "
         "accept its terms if asked, and run this again. Without such a page the name is mistyped or the set private.",
    404: "Kaggle has no data set {name} (404). Compare the name with the address of its page, which would be {page}.",
    429: "Kaggle has had too many requests from here ({reason}), so {name} did not arrive. Wait that long, or an hour, "
         "and run this again: it goes on from what has arrived.",
    "stopped": "{name} did not arrive from Kaggle ({reason}). Check the network (on Kaggle the notebook's Internet "
               "switch) and the free disk, and run this again: it goes on from what has arrived."}
WITHOUT = " Without Kaggle, set dataset to 'sample', or to a zip or folder that you have."


class KaggleFailed(RuntimeError):
    """Kaggle did not give a data set. The message says what was found and what to do, and holds no secret."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]  # IPython asks for this: a notebook shows the message alone


def find_dataset(dataset: str, *, kaggle_dataset: str = KAGGLE_DATASET, masks: str = "auto", ids: str = "",
                 split_seed: int = 42, unusable: float = 0.0) -> dict:
    """The data set that `dataset` names, made, fetched or unpacked where it must be, checked and described.

    dataset: "sample" (made under data/raw/ from `split_seed`), "kaggle" (`kaggle_dataset`, as `fetch` takes it), or a
    folder (used in place) or zip (unpacked under data/raw/). masks: a folder or zip of `<image_id>_segmentation.png`,
    "kaggle:owner/name", "auto" (a folder `masks` beside the table, if there) or "". ids: a csv with a column `image_id`
    of the photographs to keep, or "". unusable: the share of photographs that may be missing or damaged; those are left
    out and listed. Returns the content of `dataset.json`. Raises ValueError, FileNotFoundError or KaggleFailed that
    says what was found and what to do.
    """
    if dataset == "sample":
        folder = workspace.data_folder() / "raw" / f"sample-{split_seed}"
        if not folder.exists():
            sample.make_sample(folder, seed=split_seed)
    elif dataset == "kaggle":
        folder = fetch(kaggle_dataset)
    else:
        folder = archives.open_folder(dataset, "dataset")
    table_path = one_of(filter(Path.is_file, folder.rglob("marking.csv")), f"a marking.csv in {folder}")
    table = preprocess.read_marking(table_path)
    names = set(table["image_id"])
    if ids:
        listed = set(preprocess.read_csv(workspace.resolve(ids), ["image_id"])["image_id"].dropna())
        unknown = listed - names
        if unknown or not listed:
            raise ValueError(f"ids: {ids} needs a column image_id with ids of {table_path}; it has {len(listed)}, "
                             f"{len(unknown)} of them unknown{', such as ' + str(unknown.pop()) if unknown else ''}")
        table = table[table["image_id"].isin(listed)]
    photographs = one_of({path.parent for path in table_path.parent.rglob("*.jpg") if path.stem in names},
                         f"one folder in {table_path.parent} with the photographs of its rows, <image_id>.jpg")
    sizes = {path.stem: path.stat().st_size for path in photographs.glob("*.jpg") if path.is_file()}
    sums = archives.checksums(photographs)
    left_out = pixel_cache.find_unusable([photographs / f"{name}.jpg" for name in table["image_id"]], sums)
    if len(left_out) > unusable * len(table):
        raise ValueError(f"{len(left_out)} of {len(table)} photographs of {table_path} cannot be used; `unusable` "
                         f"allows {unusable:.1%}. The first: {next(iter(left_out.values()))}. Unpack the archive again "
                         "(what lies under data/raw/ comes again once its folder is deleted), list those to keep with "
                         "`ids`, or raise `unusable`")
    table = table[~table["image_id"].isin(left_out)]
    masks_folder = find_masks(masks, table_path.parent)
    masked = int((preprocess.mask_names(table["image_id"], masks_folder) != "").sum()) if masks_folder else None
    if masked == 0:
        raise ValueError(f"masks: no mask in {masks_folder} has the image id of one of the {len(table)} photographs; "
                         "name other masks, or set `masks` to ''")
    orders = {source: colour_order([photographs / f"{name}.jpg" for name in rows["image_id"]])
              for source, rows in table.groupby("source")}
    return {
        "dataset": dataset, "kaggle_dataset": kaggle_dataset if dataset == "kaggle" else "",
        "folder": str(photographs), "masks_folder": str(masks_folder or ""), "masks": masked or 0,
        "csv": str(table_path), "ids": str(workspace.resolve(ids)) if ids else "",
        "sha256": hashlib.sha256(table_path.read_bytes()).hexdigest(),
        "rows": len(table), "images": len(sizes), "bytes": sum(sizes[name] for name in table["image_id"]),
        "checked_against_archive": bool(sums), "unusable": left_out,
        "colour_order": orders[table["source"].mode()[0]]["order"], "colour_order_by_source": orders,
        "licence": "made by helpers/sample.py: no photograph of a patient" if dataset == "sample" else LICENCES}


def fetch(name: str) -> Path:
    """The folder of Kaggle's data set `name`, "owner/name" or "owner/name/version".

    On Kaggle one that was added to the notebook is used in place, whatever its version. Elsewhere it is downloaded
    once into data/raw/kaggle/; what arrives is kept until it is unpacked and checked. Raises ValueError for a name of
    another kind, KaggleFailed, and OSError where the disk has no room.
    """
    if not re.fullmatch(r"[\w-]+/[\w-]+(/[0-9]+)?", name):
        raise ValueError(f"a Kaggle data set is owner/name or owner/name/version, as {KAGGLE_DATASET}, not {name!r}")
    owner, slug, *version = name.split("/")
    for mounted in (hosts.ROOT / "kaggle" / "input" / place for place in (f"datasets/{owner}/{slug}", slug)):
        if mounted.is_dir():
            return mounted
    folder = workspace.data_folder() / "raw" / "kaggle" / owner / "@".join([slug, *version])
    arrived = folder.with_name(f"{folder.name}.download") / f"{slug}.zip"
    with workspace.locked(folder):
        if not folder.is_dir():
            if not zipfile.is_zipfile(arrived):  # the directory of a zip is at its end: what is cut short is none
                download(name, arrived.parent)
            try:
                archives.unpack(arrived, folder)
            except ValueError as error:
                shutil.rmtree(arrived.parent)
                raise KaggleFailed(f"What came from Kaggle as {name} was removed; run this again: {error}. If it comes "
                                   "again, your network may put a page of its own in Kaggle's place") from None
        shutil.rmtree(arrived.parent, ignore_errors=True)
    return folder


def download(name: str, folder: Path) -> None:
    """Download Kaggle's data set `name` into `folder`, as a zip, with Kaggle's client. Raises KaggleFailed.

    The client goes on from what an earlier call left there, tries again when the connection breaks, and shows progress.
    """
    found = find_credentials() or hosts.lend_credentials(ask=not workspace.headless()) or find_credentials()
    signed_in, why, reason = False, "none", ""
    if found == ["~/.kaggle/credentials.json"]:
        os.environ.setdefault("KAGGLE_ENABLE_OAUTH", "1")  # kaggle 2.0.2 does not look there unasked
    try:
        if found:  # without any, the client ends the program
            with contextlib.redirect_stdout(io.StringIO()), patient():  # what it prints may hold a signed address
                import kaggle  # importing it signs in
                kaggle.api.authenticate()
                signed_in = True
                kaggle.api.dataset_download_files(name, path=str(folder), quiet=workspace.headless())
            return
    except ImportError:
        raise
    except (Exception, SystemExit) as error:  # refused, it calls exit(), which a notebook does not know
        status = getattr(getattr(error, "response", None), "status_code", None)
        network = signed_in or isinstance(error, requests.RequestException)  # and not a file of credentials
        why = status if status in REFUSED else "stopped" if network else 401
        reason = workspace.UNWRITABLE.get(getattr(error, "errno", None)) or type(error).__name__
        after = error.response.headers.get("Retry-After", "") if status else ""
        reason = f"error {status}" + after.isdecimal() * f", it asks to wait {after} seconds" if status else reason
    page = "https://www.kaggle.com/datasets/" + "/".join(name.split("/")[:2])
    # outside `except`, and without the client's own words: they may hold a key
    raise KaggleFailed(REFUSED[why].format(name=name, found=" and ".join(found), page=page, reason=reason) + WITHOUT)


@contextlib.contextmanager
def patient():
    """For as long as the block lasts, no request waits for ever, and no refusal is written over what has arrived."""
    plain = requests.adapters.HTTPAdapter.send

    def send(adapter, request, timeout=None, **rest):
        adapter.max_retries = AGAIN
        answer = plain(adapter, request, timeout=min(timeout or PATIENCE, PATIENCE), **rest)
        if request.method == "GET" and answer.status_code >= 400 and answer.status_code != 416:
            error = RuntimeError()
            error.response = answer
            raise error  # ends the client, which would take the text of this answer for a piece of the zip
        return answer
    requests.adapters.HTTPAdapter.send = send
    try:
        yield
    finally:
        requests.adapters.HTTPAdapter.send = plain


def find_credentials() -> list[str]:
    """Where credentials for Kaggle lie, in the order in which its client tries them, each with what is wrong there."""
    home, variables = Path("~/.kaggle").expanduser(), os.environ
    other = home if home.is_dir() else Path(variables.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "kaggle"
    places = {
        "KAGGLE_API_TOKEN": variables.get("KAGGLE_API_TOKEN") or variables.get("KAGGLE_API_V1_TOKEN"),
        "~/.kaggle/access_token": home / f"access_token{'' if os.path.exists(home / 'access_token') else '.txt'}",
        "KAGGLE_USERNAME and KAGGLE_KEY": variables.get("KAGGLE_USERNAME") and variables.get("KAGGLE_KEY"),
        "kaggle.json": Path(variables.get("KAGGLE_CONFIG_DIR") or other) / "kaggle.json",
        "~/.kaggle/credentials.json": home / "credentials.json"}
    return [place + (flaw(there) if isinstance(there, Path) else "") for place, there in places.items()
            if (os.path.exists(there) if isinstance(there, Path) else there)]


def flaw(path: Path) -> str:
    """Why a file of credentials cannot be used, or "". Prints how to hide it where others may read it."""
    keys = {"kaggle.json": ("username", "key"), "credentials.json": ("refresh_token",)}.get(path.name, ())
    try:
        text = path.read_text(encoding="utf-8").strip()
        if os.name == "posix" and path.stat().st_mode & 0o044:
            print(f"other users of this machine may read your {path.name}: hide it with chmod 600", flush=True)
        held = json.loads(text) if keys and text else {}
        right = isinstance(held, dict) and all(isinstance(held.get(key), str) and held[key] for key in keys)
        return " (empty)" if not text else "" if right else f" (no JSON object with {' and '.join(keys)})"
    except (OSError, ValueError) as error:
        return f" ({getattr(error, 'strerror', 'neither text nor JSON')})"


def one_of(found, what: str) -> Path:
    """The only member of `found`. Raises ValueError for none or several."""
    found = sorted(found)
    if len(found) != 1:
        raise ValueError(f"expected {what}, found {len(found)}{': ' if found else ''}{', '.join(map(str, found[:2]))}; "
                         "name the folder or zip of one data set, laid out as data/README.md describes")
    return found[0]


def find_masks(masks: str, folder: Path) -> Path | None:
    """The folder of `<image_id>_segmentation.png`, or None."""
    if masks in ("", "auto"):
        return folder / "masks" if masks and (folder / "masks").is_dir() else None
    name = masks.removeprefix("kaggle:")
    place = archives.open_folder(masks, "masks") if name == masks else fetch(name)
    return one_of({path.parent for path in place.rglob("[!.]*_segmentation.png")},
                  f"a folder of masks (<image_id>_segmentation.png) in {masks}")


def colour_order(paths: list[Path], *, photographs: int = 100) -> dict:
    """What the channels of these JPEGs are, measured: skin is redder than blue, so the larger mean is red's.

    At most `photographs` evenly chosen files are decoded by OpenCV and put in the order that a standard decoder gives.
    Returns {"order": "rgb" or "bgr", "share": how many are redder in that order, "photographs": how many were read}.
    """
    redder = []
    for path in paths[::-(-len(paths) // photographs)]:
        pixels = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_4)                      # [H, W, 3], blue first
        if pixels is None:
            raise ValueError(f"{path} cannot be decoded as a JPEG: unpack or download the data set again")
        blue, _, red = pixels.mean(axis=(0, 1))
        redder.append(bool(red > blue))
    share = sum(redder) / len(redder)
    return {"order": "rgb" if share >= 0.5 else "bgr", "share": max(share, 1 - share), "photographs": len(redder)}
