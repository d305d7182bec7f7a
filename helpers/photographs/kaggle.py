"""Fetch a data set from Kaggle with its own client: credentials, patience, refusals in words."""

import codecs
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
# seconds without a byte after which an answer counts as broken off; Kaggle's client waits for ever
PATIENCE = 60
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
# why Kaggle did not give a data set, and what to do: by its status, or in words
REFUSED = {
    "none": "No credentials for Kaggle were found, so {name} was not downloaded. Create a token "
    "under API at https://www.kaggle.com/settings, save it as ~/.kaggle/access_token, type "
    "chmod 600 ~/.kaggle/access_token and run this again; 01_download.ipynb lists other ways. On "
    "Kaggle, Add Input needs none.{reason}",
    "flawed": "Kaggle's client cannot use the credentials in {found}, so {name} was not "
    "downloaded. Mend that and run this again; where they are lost: Create new ones under API at "
    "https://www.kaggle.com/settings and put them there.",
    401: "Kaggle did not accept the credentials in {found}, so {name} was not downloaded: they are "
    "mistyped, expired or revoked. Create new ones under API at https://www.kaggle.com/settings "
    "and put them there.",
    403: "Kaggle does not give {name} to this account (403; credentials in {found}). Sign in, open "
    "{page}, accept its terms if asked, and run this again. Without such a page the name is "
    "mistyped or the set private.",
    404: "Kaggle has no data set {name} (404). Compare the name with the address of its page, "
    "which would be {page}.",
    429: "Kaggle has had too many requests from here ({reason}), so {name} did not arrive. Wait "
    "that long, or an hour, and run this again: it goes on from what has arrived.",
    "stopped": "{name} did not arrive from Kaggle ({reason}). Check the network (on Kaggle the "
    "notebook's Internet switch) and the free disk, and run this again: it goes on from what has "
    "arrived.",
}
WITHOUT = " Without Kaggle, set dataset to 'sample', or to a zip or folder that you have."
KEYS = {  # what a file of credentials must hold
    "kaggle.json": ("username", "key"),
    "credentials.json": ("refresh_token",),
}


class KaggleFailed(workspace.NotFetched):
    """Kaggle did not give a data set. The message says what was found and what to do, no secret."""


def fetch(name: str) -> Path:
    """The folder of a data set of Kaggle's.

    On Kaggle one that was added to the notebook is used in place, whatever its version. Elsewhere
    it is downloaded once into data/raw/kaggle/; what arrives is kept until it is unpacked and
    checked.

    Args:
        name: "owner/name" or "owner/name/version".

    Raises:
        ValueError: the name is of another kind.
        KaggleFailed: Kaggle does not give it.
        OSError: the disk has no room.
    """
    if not re.fullmatch(r"[\w-]+/[\w-]+(/[0-9]+)?", name):
        raise ValueError(
            f"a Kaggle data set is owner/name or owner/name/version, as {KAGGLE_DATASET}, "
            f"not {name!r}"
        )
    owner, slug, *version = name.split("/")
    added = find_added(owner, slug)
    if added:
        return added
    folder = workspace.data_folder() / "raw" / "kaggle" / owner / "@".join([slug, *version])
    arrived = folder.with_name(f"{folder.name}.download") / f"{slug}.zip"
    with workspace.locked(folder):
        if not folder.is_dir():
            # the directory of a zip is at its end: what is cut short is none
            if not zipfile.is_zipfile(arrived):
                download(name, arrived.parent)
            unpack(name, arrived, folder)
        shutil.rmtree(arrived.parent, ignore_errors=True)
    return folder


def find_added(owner: str, slug: str) -> Path | None:
    """Where Kaggle lays a data set that was added to this notebook, None where it was not.

    Of what lies directly below /kaggle/input/ nobody can tell the owner: that is printed.
    """
    inputs = hosts.ROOT / "kaggle" / "input"
    of_this_owner = inputs / "datasets" / owner / slug
    if of_this_owner.is_dir():
        return of_this_owner
    of_some_owner = inputs / slug
    if of_some_owner.is_dir():
        print(
            f"using {of_some_owner}, added to this notebook; its path does not tell whose it is: "
            f"see under Input that it is {owner}/{slug}",
            flush=True,
        )
        return of_some_owner
    return None


def unpack(name: str, arrived: Path, folder: Path) -> None:
    """Unpack what arrived as `name`. Raises KaggleFailed, and removes it, where it is damaged."""
    try:
        archives.unpack(arrived, folder)
    except ValueError as error:
        shutil.rmtree(arrived.parent)
        raise KaggleFailed(
            f"What came from Kaggle as {name} was removed; run this again: {error}. If it comes "
            "again, your network may put a page of its own in Kaggle's place"
        ) from None


def download(name: str, folder: Path) -> None:
    """Download a data set of Kaggle's into `folder`, as a zip, with Kaggle's client.

    The client goes on from what an earlier call left there, tries again when the connection breaks,
    and shows progress.

    Raises:
        KaggleFailed: it did not arrive.
    """
    found = find_credentials()
    if not found:
        hosts.lend_credentials(ask=not workspace.headless())
        found = find_credentials()
    if not found:  # without any, the client ends the program
        raise KaggleFailed(refusal(name, found, "none", look_elsewhere()))
    if all(place.endswith(")") for place in found):  # it passes over what it cannot read
        raise KaggleFailed(refusal(name, found, "flawed", ""))
    if found == ["~/.kaggle/credentials.json"]:
        # kaggle 2.0.2 does not look there unasked
        os.environ.setdefault("KAGGLE_ENABLE_OAUTH", "1")
    signed_in = False
    try:
        # what the client prints may hold a signed address
        with contextlib.redirect_stdout(io.StringIO()), patient():
            import kaggle  # importing it signs in

            kaggle.api.authenticate()
            signed_in = True
            quiet = workspace.headless()
            kaggle.api.dataset_download_files(name, path=str(folder), quiet=quiet)
        return
    except ImportError:
        raise
    except (Exception, SystemExit) as error:  # refused, it calls exit()
        why, reason = explain(error, signed_in)
    # outside `except`, and without the client's own words: they may hold a key
    raise KaggleFailed(refusal(name, found, why, reason))


def explain(error: BaseException, signed_in: bool) -> tuple[int | str, str]:
    """Which of REFUSED an error of the client is, and what else can be said of it."""
    response = getattr(error, "response", None)
    if isinstance(response, requests.Response):
        status = response.status_code
        reason = f"error {status}"
        seconds = response.headers.get("Retry-After", "")
        if seconds.isdecimal():
            reason += f", it asks to wait {seconds} seconds"
        if status in REFUSED:
            return status, reason
    else:
        reason = workspace.UNWRITABLE.get(getattr(error, "errno", None), type(error).__name__)
    if signed_in or isinstance(error, requests.RequestException):
        return "stopped", reason
    return 401, reason  # the client could not use a file of credentials


def refusal(name: str, found: list[str], why: int | str, reason: str) -> str:
    """The sentences for the reader. found: the places of the credentials that were tried."""
    page = "https://www.kaggle.com/datasets/" + "/".join(name.split("/")[:2])
    places = " and ".join(found)
    return REFUSED[why].format(name=name, found=places, page=page, reason=reason) + WITHOUT


@contextlib.contextmanager
def patient():
    """While the block runs, no request waits for ever, and no refusal is taken for the zip."""
    plain = requests.adapters.HTTPAdapter.send

    def send(adapter, request, timeout=None, **rest):
        adapter.max_retries = AGAIN
        answer = plain(adapter, request, timeout=min(timeout or PATIENCE, PATIENCE), **rest)
        if request.method == "GET" and answer.status_code >= 400 and answer.status_code != 416:
            # ends the client, which would write the text of this answer over what has arrived
            error = RuntimeError()
            error.response = answer
            raise error
        return answer

    requests.adapters.HTTPAdapter.send = send
    try:
        yield
    finally:
        requests.adapters.HTTPAdapter.send = plain


def legacy_folder() -> Path:
    """Where Kaggle's client looks for kaggle.json."""
    home = Path("~/.kaggle").expanduser()
    if not home.is_dir():
        home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "kaggle"
    return Path(os.environ.get("KAGGLE_CONFIG_DIR") or home)


def find_credentials() -> list[str]:
    """Where credentials for Kaggle lie, as its client tries them, each with what is wrong there."""
    variables = os.environ
    home = Path("~/.kaggle").expanduser()
    token = home / "access_token"
    if not os.path.exists(token):  # unlike Path.exists, without a word where nobody may look
        token = home / "access_token.txt"
    name = variables.get("KAGGLE_USERNAME")
    key = variables.get("KAGGLE_KEY")

    found = []
    if variables.get("KAGGLE_API_TOKEN") or variables.get("KAGGLE_API_V1_TOKEN"):
        wrong = flaw_of_word(variables.get("KAGGLE_API_TOKEN") or "_")
        found.append(noted("KAGGLE_API_TOKEN", wrong))
    found += look_into("~/.kaggle/access_token", token)
    if name and key:
        wrong = flaw_of_word(name) or flaw_of_word(key)
        found.append(noted("KAGGLE_USERNAME and KAGGLE_KEY", wrong))
    found += look_into("kaggle.json", legacy_folder() / "kaggle.json")
    found += look_into("~/.kaggle/credentials.json", home / "credentials.json")
    return found


def look_into(place: str, path: Path) -> list[str]:
    """The place, with what is wrong there; nothing where there is no such file."""
    if not os.path.exists(path):
        return []
    return [noted(place, flaw(path))]


def noted(place: str, wrong: str) -> str:
    """A place with what is wrong there."""
    return f"{place} ({wrong})" if wrong else place


def look_elsewhere() -> str:
    """What looks like credentials where Kaggle's client does not look, in sentences, or ""."""
    home = Path("~").expanduser()
    legacy = legacy_folder()
    said = ""
    if legacy.is_file():
        said += f" KAGGLE_CONFIG_DIR is a file, {shown(legacy)}: name its folder."
    for one, other in (("KAGGLE_USERNAME", "KAGGLE_KEY"), ("KAGGLE_KEY", "KAGGLE_USERNAME")):
        if os.environ.get(one) and not os.environ.get(other):
            said += f" {one} is set, and {other} is not."
    folders = (legacy, home / ".kaggle", home / "Downloads", home / "Desktop", home, Path.cwd())
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(OSError):  # not there, or nobody may look
            for name in sorted(os.listdir(folder)):
                kind = re.match(r"(kaggle).*\.json|(access_token)", name, re.IGNORECASE)
                if kind:
                    place = legacy / "kaggle.json" if kind[1] else home / ".kaggle" / "access_token"
                    said += f" There is {shown(folder / name)}: move it to {shown(place)}."
    return said


def shown(path: Path) -> str:
    """A path, with ~ for the home folder."""
    home = Path("~").expanduser()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def flaw(path: Path) -> str:
    """Why a file of credentials cannot be used, or "".

    Prints how to hide it where others may read it.
    """
    try:
        content = path.read_bytes()
        if os.name == "posix" and path.stat().st_mode & 0o044:
            print(
                f"other users of this machine may read your {path.name}: hide it with chmod 600",
                flush=True,
            )
    except OSError as error:
        return error.strerror or "it cannot be read"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        return "UTF-16, as PowerShell's > writes: save it as UTF-8"
    if content.startswith(codecs.BOM_UTF8):
        return "begins with a byte order mark, as Windows' editors write: save it without BOM"
    if content.startswith(b"{\\rtf"):
        return "RTF, as TextEdit writes: save it as plain text"
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        return "neither text nor JSON"
    if not text:
        return "empty"
    if path.name in KEYS:
        return flaw_of_json(text, KEYS[path.name])
    if text.startswith("{"):
        return "JSON, which belongs into kaggle.json: here is a token alone"
    return flaw_of_word(text)


def flaw_of_json(text: str, keys: tuple[str, ...]) -> str:
    """Why the text of a file of credentials that holds these keys cannot be used, or ""."""
    try:
        held = json.loads(text)
    except json.JSONDecodeError as error:
        if re.search("[\u2018-\u201f\u00ab\u00bb]", text):
            return 'no JSON: it has curly quotes, as word processors write, in place of "'
        if re.fullmatch(r"[\w.-]+", text):
            return "no JSON; a token belongs into ~/.kaggle/access_token"
        return f"no JSON: {error.msg}, line {error.lineno}, column {error.colno}"
    for key in keys:
        if not isinstance(held, dict) or not isinstance(held.get(key), str) or not held[key]:
            return f"no JSON object with {' and '.join(keys)}"
        if flaw_of_word(held[key]):
            return f"its {key} is {flaw_of_word(held[key])}"
    return ""


def flaw_of_word(text: str) -> str:
    """Why a name, key or token cannot be one, or ""."""
    if re.search("[\"'\u2018-\u201f]", text):
        return "in quotes: it stands there without"
    if text != text.strip() or len(text.split()) > 1:
        return "not one word: blanks or more lines around it"
    if not text.isascii():
        return "not plain letters and digits"
    return ""
