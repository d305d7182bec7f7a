"""A real chromium for the tests of the book and of JupyterLab: Debian's, driven by selenium."""

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import PATIENCE

LONG = PATIENCE / 3  # seconds that no page takes, however slow the machine
BUILT = Path(__file__).resolve().parents[2] / "site" / "_build" / "html"
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--window-size=1280,900",
]


class Browser:
    """Chromium with what the tests ask of it; `driver` is selenium's own."""

    def __init__(self, driver):
        self.driver = driver
        self.script, self.find = driver.execute_script, driver.find_elements

    def width(self, pixels: int, height: int = 900) -> None:
        """Make the page this wide, as a phone does below 600 pixels."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": pixels < 600},
        )

    def until(self, condition):
        """Wait until `condition()` is true, and return it; a failure names the page."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, LONG, poll_frequency=0.1).until(
            lambda _: condition(), f"not within {LONG} s at {self.driver.current_url}"
        )

    def complaints(self) -> list[str]:
        """Errors of the console since the last call."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
        ]

    def asked(self) -> list[str]:
        """Addresses that pages have asked for since the last call, but for those inside a page."""
        events = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        sent = [
            event["params"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        found = [event["request"]["url"] for event in sent]
        return [url for url in found if not url.startswith(("data:", "blob:", "about:", "chrome"))]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A new chromium. Skips, with the reason, where it, its driver or selenium are not there."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="needs selenium: pip install -r site/requirements.txt"
    )
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if not all(programs):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    driver.set_page_load_timeout(LONG)
    driver.set_script_timeout(LONG)
    yield Browser(driver)
    driver.quit()


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a log line for each."""

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def address():
    """The built book on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(BUILT)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
