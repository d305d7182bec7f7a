"""Fetch a data set from Kaggle with its own client: credentials, patience, and refusals in words."""

import contextlib
import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import requests

from helpers import hosts, workspace
from helpers.photographs import archives

KAGGLE_DATASET = "shonenkov/melanoma-merged-external-data-512x512-jpeg"
PATIENCE = 60  # seconds without a byte after which an answer counts as broken off; Kaggle's client would wait for ever
AGAIN = requests.adapters.Retry(
    3,
    connect=0,
    read=False,
    status_forcelist=(500, 502, 503, 504),
    allowed_methods=None,
    backoff_factor=0.5,
    respect_retry_after_header=False,
    raise_on_status=False,
)
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
    "switch) and the free disk, and run this again: it goes on from what has arrived.",
}
WITHOUT = " Without Kaggle, set dataset to 'sample', or to a zip or folder that you have."


class KaggleFailed(RuntimeError):
    """Kaggle did not give a data set. The message says what was found and what to do, and holds no secret."""

    def _render_traceback_(self) -> list[str]:
        return [
            f"{type(self).__name__}: {self}"
        ]  # IPython asks for this: a notebook shows the message alone


def fetch(name: str) -> Path:
    """The folder of Kaggle's data set `name`, "owner/name" or "owner/name/version".

    On Kaggle one that was added to the notebook is used in place, whatever its version. Elsewhere it is downloaded
    once into data/raw/kaggle/; what arrives is kept until it is unpacked and checked. Raises ValueError for a name of
    another kind, KaggleFailed, and OSError where the disk has no room.
    """
    if not re.fullmatch(r"[\w-]+/[\w-]+(/[0-9]+)?", name):
        raise ValueError(
            f"a Kaggle data set is owner/name or owner/name/version, as {KAGGLE_DATASET}, not {name!r}"
        )
    owner, slug, *version = name.split("/")
    for mounted in (
        hosts.ROOT / "kaggle" / "input" / place for place in (f"datasets/{owner}/{slug}", slug)
    ):
        if mounted.is_dir():
            return mounted
    folder = workspace.data_folder() / "raw" / "kaggle" / owner / "@".join([slug, *version])
    arrived = folder.with_name(f"{folder.name}.download") / f"{slug}.zip"
    with workspace.locked(folder):
        if not folder.is_dir():
            if not zipfile.is_zipfile(
                arrived
            ):  # the directory of a zip is at its end: what is cut short is none
                download(name, arrived.parent)
            try:
                archives.unpack(arrived, folder)
            except ValueError as error:
                shutil.rmtree(arrived.parent)
                raise KaggleFailed(
                    f"What came from Kaggle as {name} was removed; run this again: {error}. If it comes "
                    "again, your network may put a page of its own in Kaggle's place"
                ) from None
        shutil.rmtree(arrived.parent, ignore_errors=True)
    return folder


def download(name: str, folder: Path) -> None:
    """Download Kaggle's data set `name` into `folder`, as a zip, with Kaggle's client. Raises KaggleFailed.

    The client goes on from what an earlier call left there, tries again when the connection breaks, and shows progress.
    """
    found = (
        find_credentials()
        or hosts.lend_credentials(ask=not workspace.headless())
        or find_credentials()
    )
    signed_in, why, reason = False, "none", ""
    if found == ["~/.kaggle/credentials.json"]:
        os.environ.setdefault(
            "KAGGLE_ENABLE_OAUTH", "1"
        )  # kaggle 2.0.2 does not look there unasked
    try:
        if found:  # without any, the client ends the program
            with (
                contextlib.redirect_stdout(io.StringIO()),
                patient(),
            ):  # what it prints may hold a signed address
                import kaggle  # importing it signs in

                kaggle.api.authenticate()
                signed_in = True
                kaggle.api.dataset_download_files(
                    name, path=str(folder), quiet=workspace.headless()
                )
            return
    except ImportError:
        raise
    except (
        Exception,
        SystemExit,
    ) as error:  # refused, it calls exit(), which a notebook does not know
        status = getattr(getattr(error, "response", None), "status_code", None)
        network = signed_in or isinstance(
            error, requests.RequestException
        )  # and not a file of credentials
        why = status if status in REFUSED else "stopped" if network else 401
        reason = workspace.UNWRITABLE.get(getattr(error, "errno", None)) or type(error).__name__
        after = error.response.headers.get("Retry-After", "") if status else ""
        reason = (
            f"error {status}" + after.isdecimal() * f", it asks to wait {after} seconds"
            if status
            else reason
        )
    page = "https://www.kaggle.com/datasets/" + "/".join(name.split("/")[:2])
    # outside `except`, and without the client's own words: they may hold a key
    raise KaggleFailed(
        REFUSED[why].format(name=name, found=" and ".join(found), page=page, reason=reason)
        + WITHOUT
    )


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
    other = (
        home
        if home.is_dir()
        else Path(variables.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "kaggle"
    )
    places = {
        "KAGGLE_API_TOKEN": variables.get("KAGGLE_API_TOKEN")
        or variables.get("KAGGLE_API_V1_TOKEN"),
        "~/.kaggle/access_token": home
        / f"access_token{'' if os.path.exists(home / 'access_token') else '.txt'}",
        "KAGGLE_USERNAME and KAGGLE_KEY": variables.get("KAGGLE_USERNAME")
        and variables.get("KAGGLE_KEY"),
        "kaggle.json": Path(variables.get("KAGGLE_CONFIG_DIR") or other) / "kaggle.json",
        "~/.kaggle/credentials.json": home / "credentials.json",
    }
    return [
        place + (flaw(there) if isinstance(there, Path) else "")
        for place, there in places.items()
        if (os.path.exists(there) if isinstance(there, Path) else there)
    ]


def flaw(path: Path) -> str:
    """Why a file of credentials cannot be used, or "". Prints how to hide it where others may read it."""
    keys = {"kaggle.json": ("username", "key"), "credentials.json": ("refresh_token",)}.get(
        path.name, ()
    )
    try:
        text = path.read_text(encoding="utf-8").strip()
        if os.name == "posix" and path.stat().st_mode & 0o044:
            print(
                f"other users of this machine may read your {path.name}: hide it with chmod 600",
                flush=True,
            )
        held = json.loads(text) if keys and text else {}
        right = isinstance(held, dict) and all(
            isinstance(held.get(key), str) and held[key] for key in keys
        )
        return (
            " (empty)"
            if not text
            else ""
            if right
            else f" (no JSON object with {' and '.join(keys)})"
        )
    except (OSError, ValueError) as error:
        return f" ({getattr(error, 'strerror', 'neither text nor JSON')})"
