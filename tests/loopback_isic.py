"""The ISIC Archive on this machine: its pages, its signed addresses on another port, its refusals.

Written after the interface of the archive's own server; ATTENTION_ISIC_API and
ATTENTION_ISIC_MASKS lead the fetch here. `python -m tests.loopback_isic ZIP [MASKS_ZIP]` serves the
photographs of a zip in the Kaggle layout whose red and blue are exchanged, as the Kaggle set's are,
until it is interrupted, and prints the variables to export.
"""

import contextlib
import hashlib
import io
import json
import re
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlparse

import cv2
import numpy as np
import pandas as pd

COLLECTION = "Challenge 2018: Task 1-2: Training"
KEYS = ("diagnosis_1", "diagnosis_3", "image_type", "copyright_license")


@dataclass
class Photograph:
    """One photograph of the archive, as its search shows it."""

    isic_id: str
    thumbnail: bytes  # a JPEG whose longer side is 256
    clinical: dict
    licence: str = "CC-0"
    attribution: str = "Clinic A"
    collections: tuple[int, ...] = (1, 63)

    def result(self, address: str) -> dict:
        files = {"full": {"url": f"{address}&full", "size": 3_000_000}}
        if self.thumbnail:
            files["thumbnail_256"] = {"url": address, "size": len(self.thumbnail)}
        return {
            "isic_id": self.isic_id,
            "public": True,
            "copyright_license": self.licence,
            "attribution": self.attribution,
            "files": files,
            "metadata": {
                "acquisition": {"image_type": "dermoscopic"},
                "clinical": self.clinical,
            },
        }

    def value(self, key: str) -> str:
        known = {"image_type": "dermoscopic", "copyright_license": self.licence}
        return known.get(key) or str(self.clinical.get(key, ""))


@dataclass
class Faults:
    """What goes wrong, each as often as it says."""

    busy: int = 0  # the next answers of the api are 429 with Retry-After
    wait: str = "1"  # its seconds
    broken: int = 0  # the next answers of the api are 503
    html: bool = False  # the api answers a login page
    expired: set = field(default_factory=set)  # ids whose address of the search has expired
    gone: set = field(default_factory=set)  # ids whose thumbnail is not there
    cuts: int = 0  # the next thumbnails break off in the middle
    damaged: int = 0  # the next thumbnails are no photographs
    cut_masks: int = 0  # the next answers with the masks break off in the middle


class LoopbackIsic:
    """Serves `photographs`, and `masks` (PNG by id) as the zip of the default query.

    `requests` is what came: search, image, collections, thumbnail or masks, each with its path.
    """

    def __init__(self, photographs: list[Photograph], masks: dict[str, bytes], page: int = 100):
        self.photographs = {one.isic_id: one for one in photographs}
        self.page = page
        self.faults = Faults()
        self.requests = []
        self.lock = threading.Lock()
        self.zip = zip_of_masks(masks)
        self.servers = []
        for handler in (Api, Files):
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            server.daemon_threads = True
            server.isic = self
            self.servers.append(server)

    def __enter__(self) -> "LoopbackIsic":
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].server_address[1]}/api/v2"

    @property
    def files(self) -> str:
        return f"http://127.0.0.1:{self.servers[1].server_address[1]}"

    def environment(self) -> dict[str, str]:
        """The variables that lead the fetch here."""
        md5 = hashlib.md5(self.zip, usedforsecurity=False).hexdigest()
        return {
            "ATTENTION_ISIC_API": self.api,
            "ATTENTION_ISIC_MASKS": f"{self.files}/masks.zip#md5={md5}",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def names(self) -> list[str]:
        return [name for name, _ in self.requests]

    def count(self, name: str) -> int:
        return self.names().count(name)

    def record(self, name: str, path: str) -> None:
        with self.lock:
            self.requests.append((name, path))

    def take(self, fault: str) -> bool:
        """Whether this fault is due now; it is used up by that."""
        with self.lock:
            left = getattr(self.faults, fault)
            setattr(self.faults, fault, max(0, left - 1))
        return left > 0

    def address(self, isic_id: str, signed: str) -> str:
        return f"{self.files}/{isic_id}.jpg?signed={signed}"


def zip_of_masks(masks: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        for isic_id, mask in masks.items():
            name = f"ISIC2018_Task1_Training_GroundTruth/{isic_id}_segmentation.png"
            zipped.writestr(name, mask)
    return content.getvalue()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *words):
        """Nothing: `requests` is the record."""

    def answer(self, status: int, content: object, kind: str = "application/json", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def cut(self, status: int, body: bytes) -> None:
        """All of the headers, and half of what they promise."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self.connection.close()


class Api(Handler):
    def do_GET(self):
        isic = self.server.isic
        asked = urlparse(self.path)
        place = asked.path.removeprefix("/api/v2/").strip("/").split("/")
        if isic.faults.html:
            self.answer(200, b"<html><body>Please sign in</body></html>", "text/html")
        elif isic.take("busy"):
            self.answer(429, {"detail": "throttled"}, Retry_After=isic.faults.wait)
        elif isic.take("broken"):
            self.answer(503, b"upstream", "text/plain")
        elif place == ["collections"]:
            isic.record("collections", self.path)
            found = [{"id": 1, "name": "All"}, {"id": 63, "name": COLLECTION}]
            self.answer(200, {"count": 2, "next": None, "results": found})
        elif place == ["images", "search"]:
            isic.record("search", self.path)
            self.search({name: values[0] for name, values in parse_qs(asked.query).items()})
        elif place[0] == "images" and place[-1] in isic.photographs:
            isic.record("image", self.path)
            one = isic.photographs[place[-1]]
            self.answer(200, one.result(isic.address(one.isic_id, "image")))
        else:
            self.answer(404, {"detail": "Not Found"})

    def search(self, asked: dict[str, str]) -> None:
        isic = self.server.isic
        terms = re.findall(r'(\w+):("[^"]*"|\S+)', asked.get("query", ""))
        unknown = [key for key, _ in terms if key not in KEYS]
        if unknown:
            self.answer(400, {"detail": f"unknown search field: {unknown[0]}"})
            return
        found = list(isic.photographs.values())
        for key, value in terms:
            wanted = value.strip('"').rstrip("*")
            found = [one for one in found if one.value(key).startswith(wanted)]
        if "collections" in asked:
            wanted = {int(number) for number in asked["collections"].split(",")}
            found = [one for one in found if wanted & set(one.collections)]
        start = int(asked.get("cursor", 0))
        end = start + min(isic.page, int(asked.get("limit", 10)))
        more = None
        if end < len(found):
            kept = {name: value for name, value in asked.items() if name != "cursor"}
            words = "&".join(f"{name}={quote(value)}" for name, value in kept.items())
            more = f"{isic.api}/images/search/?{words}&cursor={end}"
        page = {"next": more, "previous": None}
        if start == 0:
            page["count"] = len(found)
        results = [one.result(isic.address(one.isic_id, "search")) for one in found[start:end]]
        self.answer(200, page | {"results": results})


class Files(Handler):
    def do_GET(self):
        isic = self.server.isic
        asked = urlparse(self.path)
        name = Path(asked.path).stem
        if name == "masks":
            isic.record("masks", self.path)
            self.masks()
            return
        isic.record("thumbnail", self.path)
        if name in isic.faults.gone:
            self.answer(404, b"<Error>NoSuchKey</Error>", "application/xml")
        elif name in isic.faults.expired and "signed=search" in asked.query:
            self.answer(403, b"<Error>Request has expired</Error>", "application/xml")
        elif isic.take("cuts"):
            self.cut(200, isic.photographs[name].thumbnail)
        elif isic.take("damaged"):
            self.answer(200, b"<html>", "text/html")
        else:
            self.answer(200, isic.photographs[name].thumbnail, "image/jpeg")

    def masks(self) -> None:
        isic = self.server.isic
        start = int(re.search(r"\d+", self.headers.get("Range", "bytes=0-"))[0])
        if start >= len(isic.zip):
            self.answer(416, b"", "text/plain")
        elif isic.take("cut_masks"):
            self.cut(206, isic.zip[start:])
        else:
            self.answer(206, isic.zip[start:], "application/zip")


def archive_of(folder: Path, swapped: set[str], masks: Path | None = None) -> LoopbackIsic:
    """An archive that holds the photographs of a folder in the Kaggle layout, not squashed.

    Args:
        folder: with `marking.csv`, and photographs below it.
        swapped: sources whose files hold red and blue exchanged; the archive's do not.
        masks: where their masks are.
    """
    table = pd.read_csv(folder / "marking.csv", dtype=str).fillna("")
    files = {path.stem: path for path in folder.rglob("*.jpg")}
    photographs = []
    drawn = {}
    for row in table.to_dict("records"):
        pixels = cv2.imread(str(files[row["image_id"]]))  # [S, S, 3], blue first
        if row["source"] in swapped:
            pixels = pixels[..., ::-1]
        pixels = cv2.resize(np.ascontiguousarray(pixels), (256, 192), interpolation=cv2.INTER_AREA)
        coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes()
        owner = row["source"] or "unknown"
        one = Photograph(row["image_id"], coded, clinical_of(row), attribution=owner)
        photographs.append(one)
        mask = masks and masks / f"{row['image_id']}_segmentation.png"
        if mask and mask.exists():
            lesion = cv2.resize(cv2.imread(str(mask), 0), (1024, 768))
            drawn[row["image_id"]] = cv2.imencode(".png", (lesion > 127) * np.uint8(255))[
                1
            ].tobytes()
    return LoopbackIsic(photographs, drawn)


def clinical_of(row: dict) -> dict:
    """What the archive says of a row of marking.csv; an unknown key is absent."""
    clinical = {"diagnosis_1": "Benign", "diagnosis_3": "Nevus"}
    if row["target"] in ("1", "1.0"):
        clinical = {"diagnosis_1": "Malignant", "diagnosis_3": "Melanoma Invasive"}
    # Kaggle's table keeps the lesion of an ISIC 2019 photograph in the patient's column
    group = "lesion_id" if row["source"] == "ISIC19" else "patient_id"
    names = {
        group: "patient_id",
        "sex": "sex",
        "age_approx": "age_approx",
        "anatom_site_general": "anatom_site_general_challenge",
    }
    for name, column in names.items():
        if row.get(column):
            value = row[column]
            clinical[name] = float(value) if name == "age_approx" else value
    return clinical


def main(photographs: str, masks: str = "") -> None:
    """Serve a zip, and the photographs of a zip of masks alone where there is one."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for archive in filter(None, (photographs, masks)):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(folder)
        table = pd.read_csv(folder / "marking.csv", dtype=str)
        if masks:
            with_mask = {path.name.split("_seg")[0] for path in (folder / "masks").iterdir()}
            table = table[table["image_id"].isin(with_mask)]
            table.to_csv(folder / "marking.csv", index=False)
        with archive_of(folder, set(table["source"]), folder / "masks" if masks else None) as isic:
            for name, value in isic.environment().items():
                print(f"export {name}={value}", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(2)
                    print(len(isic.requests), "requests:", Counter(isic.names()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
