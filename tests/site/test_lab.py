"""A real JupyterLab in a real browser: 03 and 05 run from its menu, the explorer's slider moves.

Needs Debian's chromium and chromium-driver, and selenium (site/requirements.txt); skips without
them. A small run (60 drawn photographs of 64 pixels, one epoch) is made first, in about a minute.
The notebooks are copies without their outputs, so that a figure on the page was made there and
then. JupyterLab is told to keep all cells on the page, whether in view or not, and not to ask for
news of itself.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

from helpers.photographs.sample import make_sample
from tests.conftest import PATIENCE

PROJECT = Path(__file__).resolve().parents[2]
TOKEN = "read-and-run"  # noqa: S105  of a server on loopback that lives as long as this file's tests
NOTEBOOKS = ["03_attention_model.ipynb", "05_visualize_attention.ipynb"]
RUN_ALL = '.lm-Menu-item[data-command="runmenu:run-all"]:not(.lm-mod-disabled)'
PIXELS = """
const image = arguments[0], canvas = document.createElement("canvas");
canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
canvas.getContext("2d").drawImage(image, 0, 0);
return canvas.toDataURL();
"""


@pytest.fixture(scope="module")
def place(browser, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A copy of the project with bare 03 and 05, and an environment with a small run "sample"."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(
        PROJECT / "helpers",
        folder / "project" / "helpers",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (folder / "project" / "notebooks").mkdir()
    for name in NOTEBOOKS:
        notebook = nbformat.read(PROJECT / "notebooks" / name, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / "project" / "notebooks" / name)
    make_sample(folder / "small", seed=5, count=60, side=64)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ATTENTION_", "JUPYTER"))
    }
    environment |= {
        "ATTENTION_DATA": str(folder / "data"),
        "ATTENTION_RUNS": str(folder / "runs"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    for plugin, setting in (
        ("notebook-extension/tracker", {"windowingMode": "none"}),
        ("apputils-extension/notification", {"fetchNews": "false"}),
    ):
        path = folder / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))
    values = {"dataset": str(folder / "small"), "image_size": 64, "epochs": 1, "benign": 20}
    (folder / "small.yaml").write_text(json.dumps(values))
    command = [sys.executable, "-m", "helpers.run", "--params", str(folder / "small.yaml")]
    started = time.monotonic()
    for number in ("01", "02", "04"):
        done = subprocess.run(
            [*command, "--only", number],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    print(f"\na small run: {time.monotonic() - started:.0f} s")
    return folder, environment


@pytest.fixture(scope="module")
def lab(place):
    """The address of a JupyterLab on loopback that somebody watches: not ATTENTION_HEADLESS."""
    import socket

    folder, environment = place
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--port-retries=0",
        f"--IdentityProvider.token={TOKEN}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        f"--ServerApp.root_dir={folder / 'project' / 'notebooks'}",
    ]
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=PATIENCE)  # noqa: S310  loopback
            break
        except urllib.error.URLError:
            time.sleep(0.2)  # nothing tells when a port opens
    assert server.poll() is None, (folder / "lab.log").read_text()
    yield address
    server.terminate()
    server.wait(timeout=PATIENCE)


def idle(browser) -> bool:
    """Whether the status bar says that a kernel is connected and has nothing to do."""
    return any(
        one.text.endswith("| Idle")
        for one in browser.find("css selector", ".jp-StatusBar-TextItem")
    )


def run_all(browser, address: str, name: str) -> float:
    """Open a notebook and choose Run > Run All Cells; the seconds until the kernel is done."""
    browser.width(1280, 1000)
    browser.complaints()
    browser.driver.get(f"{address}/lab/workspaces/test/tree/{name}?token={TOKEN}&reset")
    prompts = (
        "return [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
        ".map((prompt) => prompt.textContent)"
    )
    browser.until(lambda: browser.script(prompts) and idle(browser))
    assert set(browser.script(prompts)) == {"[ ]:"}, "nothing has run yet"
    started = time.monotonic()
    menu = next(
        one for one in browser.find("css selector", ".lm-MenuBar-item") if one.text == "Run"
    )
    menu.click()
    entry = browser.until(lambda: browser.find("css selector", RUN_ALL))[0]
    assert "Run All Cells" in entry.text
    entry.click()
    browser.until(lambda: "[*]:" in browser.script(prompts))
    browser.until(lambda: not {"[*]:", "[ ]:"} & set(browser.script(prompts)) or errors(browser))
    browser.until(lambda: idle(browser))
    return time.monotonic() - started


def errors(browser) -> list[str]:
    """Errors and warnings among the outputs."""
    bad = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{}"]'
    return [
        one.text
        for kind in ("error", "stderr")
        for one in browser.find("css selector", bad.format(kind))
    ]


def keep(browser, name: str) -> None:
    """A picture of the page, where ATTENTION_SCREENSHOTS names a folder."""
    if folder := os.environ.get("ATTENTION_SCREENSHOTS"):
        browser.driver.save_screenshot(str(Path(folder) / name))


def figures(browser) -> list[int]:
    """Widths of the pictures among the outputs; 0 is one that does not load."""
    return browser.script(
        "return [...document.querySelectorAll('.jp-OutputArea-output.jp-RenderedImage img')]"
        ".map((image) => image.naturalWidth)"
    )


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_the_menu(browser, lab, name):
    seconds = run_all(browser, lab, name)
    print(f"\n{name} in JupyterLab: {seconds:.0f} s")
    keep(browser, f"lab-{name[:2]}.png")
    assert errors(browser) == []
    stored = nbformat.read(PROJECT / "notebooks" / name, as_version=4)
    drawn = sum(
        1
        for cell in stored.cells
        for output in cell.get("outputs", [])
        if {"image/png", "image/jpeg"} & set(output.get("data", {}))
    )
    shown = figures(browser)
    assert len(shown) == drawn - ("05" in name) and min(shown) > 100, (
        "05 shows the explorer in place of a figure"
    )


def test_the_explorer_moves(browser, lab):
    """Right after 05 has run above: the slider's handle is dragged, and another map is chosen."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import Select

    if "05_visualize" not in browser.driver.current_url:
        run_all(browser, lab, NOTEBOOKS[1])
    box = browser.find(
        "xpath", "//div[contains(@class, 'widget-slider')]/label[text()='opacity']/../.."
    )[0]
    browser.script("arguments[0].scrollIntoView({block: 'center'})", box)
    handle = box.find_element("css selector", ".noUi-handle")
    picture = box.find_element(
        "css selector", "img"
    )  # the photograph; the bar of colours comes after it
    readout = box.find_element("css selector", ".widget-readout")
    caption = box.find_elements("css selector", ".widget-label")[-1]
    before, said = browser.script(PIXELS, picture), readout.text
    assert float(said) == 0.4 and "dark blue" in caption.text
    ActionChains(browser.driver).drag_and_drop_by_offset(handle, 60, 0).perform()
    browser.until(lambda: float(readout.text) > 0.4)
    browser.until(lambda: browser.script(PIXELS, picture) != before)
    keep(browser, "lab-explorer.png")
    moved, ends = browser.script(PIXELS, picture), caption.text
    Select(box.find_elements("css selector", "select")[1]).select_by_visible_text("Grad-CAM")
    browser.until(lambda: browser.script(PIXELS, picture) != moved and caption.text != ends)
    assert errors(browser) == []


def test_a_slider_without_a_kernel_takes_the_arrow_keys(browser, lab):
    """Right after 05 has run above: JupyterLab would go from cell to cell with them."""
    from selenium.webdriver import ActionChains, Keys

    if "05_visualize" not in browser.driver.current_url:
        run_all(browser, lab, NOTEBOOKS[1])
    (slider,) = browser.find("css selector", ".attention-slider input[type=range]")
    browser.script("arguments[0].scrollIntoView({block: 'center'})", slider)
    ActionChains(browser.driver).click(slider).perform()
    before = int(slider.get_attribute("value"))
    keys = [Keys.ARROW_LEFT, Keys.ARROW_DOWN, Keys.ARROW_LEFT, Keys.ARROW_UP]
    ActionChains(browser.driver).send_keys(keys).perform()
    assert int(slider.get_attribute("value")) == before - 2
    assert browser.driver.switch_to.active_element == slider
    keep(browser, "lab-slider.png")
