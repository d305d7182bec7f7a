"""Kaggle on this machine: an HTTP server for a zip, to which variables lead Kaggle's own client.

It answers as Kaggle does: who owns a token, 302 to a signed address, the zip from there, whole or
from a byte on. `python tests/loopback_kaggle.py ZIP` serves until it is interrupted, and prints the
variables to export.
"""

import base64
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "KGAT_loopback_token"  # noqa: S105 - of this server alone
KEY = "loopback-key"
OAUTH = "loopback-oauth-token"
SIGNATURE = "loopback-signature"
SECRETS = (TOKEN, KEY, OAUTH, SIGNATURE)  # what must stand in no output and in no file
USER = "reader"
STALL = 0  # in place of a status: the connection stays open, and nothing comes


class LoopbackKaggle:
    """Serves `archive` as every data set, to TOKEN, to USER with KEY, or to OAUTH.

    Args:
        status: what DownloadDataset answers, 200 for the zip.
        bad_token: what IntrospectToken answers to another token.
        oauth: what GenerateAccessToken answers.
        headers: more of them in a refusal.
        cuts: bytes after which the first answers with the zip break off before its end.
        refusals: what the first DownloadDataset answer, a status or STALL each.
        faults: what the first answers with the zip are instead: a function of the handler and of
            the byte to start from, or None for a whole answer.

    `requests` is what came: dicts of `name` (IntrospectToken, GenerateAccessToken, DownloadDataset
    or zip), `headers` and `body`.
    """

    def __init__(
        self,
        archive: Path,
        *,
        status: int = 200,
        bad_token: int = 403,
        oauth: int = 200,
        headers=(),
        cuts: tuple[int, ...] = (),
        refusals: tuple[int, ...] = (),
        faults: tuple = (),
    ):
        self.content = archive.read_bytes()
        self.status = status
        self.bad_token = bad_token
        self.oauth = oauth
        self.headers = dict(headers)
        self.cuts = list(cuts)
        self.refusals = list(refusals)
        self.faults = list(faults)
        self.requests = []
        self.closing = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.kaggle = self

    def __enter__(self):
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def __exit__(self, *error):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def names(self) -> list[str]:
        """The names of the requests that came, in order."""
        return [request["name"] for request in self.requests]

    def environment(self, home: Path) -> dict[str, str]:
        """The variables that lead Kaggle's client here, with this home folder; no credentials."""
        # once the server is closed there is nobody, as without a network
        proxy = f"http://127.0.0.1:{self.server.server_address[1]}"
        return {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "HTTP_PROXY": proxy,
            "http_proxy": proxy,
            "NO_PROXY": "",
            "no_proxy": "",
            "HOME": str(home),
        }


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *words):
        """Nothing: `requests` is the record."""

    def record(self, name: str) -> dict:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.kaggle.requests.append(
            {"name": name, "headers": dict(self.headers), "body": body.decode()}
        )
        return json.loads(body or b"{}")

    def answer(self, status: int, content: dict, **headers: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        kaggle = self.server.kaggle
        name = self.path.rsplit("/", 1)[1]
        body = self.record(name)
        basic = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        if name == "IntrospectToken":
            if body["token"] == TOKEN:
                self.answer(200, {"active": True, "username": USER})
            else:
                self.answer(kaggle.bad_token, {"active": False, "username": ""})
        elif name == "GenerateAccessToken":
            granted = {"token": OAUTH, "expiresIn": 3600}
            self.answer(kaggle.oauth, granted if kaggle.oauth == 200 else {})
        elif self.headers["Authorization"] not in (f"Bearer {TOKEN}", f"Bearer {OAUTH}", basic):
            self.answer(401, {"code": 401, "message": "Unauthorized"})
        elif kaggle.refusals or kaggle.status != 200:
            status = kaggle.refusals.pop(0) if kaggle.refusals else kaggle.status
            if status == STALL:
                kaggle.closing.wait()
            else:
                self.answer(status, {"code": status, "message": "refused"}, **kaggle.headers)
        else:
            self.answer(302, {}, Location=f"http://storage.localhost/set.zip?signature={SIGNATURE}")

    def do_GET(self):
        kaggle = self.server.kaggle
        self.record("zip")
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        rest = kaggle.content[start:]
        fault = kaggle.faults.pop(0) if kaggle.faults else None
        if fault:
            fault(self, start)
            return
        self.send_zip(start, len(rest))
        if kaggle.cuts:
            rest = rest[:-1][: kaggle.cuts.pop(0)]
        self.wfile.write(rest)

    def send_zip(self, start: int, length: int) -> None:
        """The head of an answer with the zip from byte `start` on: `length` bytes are to follow."""
        size = len(self.server.kaggle.content)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"loopback"')
        self.send_header("Last-Modified", "Thu, 02 Jan 2020 03:04:05 GMT")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()


if __name__ == "__main__":
    with LoopbackKaggle(Path(sys.argv[1])) as server:
        for name, value in {
            **server.environment(Path(os.environ["HOME"])),
            "KAGGLE_API_TOKEN": TOKEN,
        }.items():
            print(f"export {name}={value!r}")
        sys.stdout.flush()
        threading.Event().wait()
