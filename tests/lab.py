"""JupyterLab and a page of it in headless Chromium, for test_browser.py and bench_slider.py."""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import notebooks
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, WebSocket, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

# Waits end as soon as their condition holds: these are the times after which a slow machine counts as a failure.
START = 120  # s, for the server, a page or a widget to come up
RUN = 600  # s, for all cells of a notebook
ANSWER = 60  # s, for a picture to follow a slider

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A page that opens asks the kernel for its widgets; one that has not imported ipywidgets yet answers with this.
_NO_WIDGETS_YET = re.compile(r"(No such comm(: [0-9a-f-]+| target registered: jupyter\.widget\.control)\s*)+")

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def find_chromium() -> str | None:
    """The path of a browser: $CHROMIUM, one on the PATH, or Playwright's own download."""
    for name in filter(None, (os.environ.get("CHROMIUM"), *_BROWSERS)):
        if found := shutil.which(name):
            return found
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def holds_within(seconds: float, condition: Callable[[], object]) -> bool:
    """Whether the condition comes true within that time; returns as soon as it is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Server:
    """A running Jupyter server on this machine."""

    port: int
    token: str
    log: Path

    def url(self, path: str, query: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{path}?token={self.token}{query}"

    def api(self, path: str, method: str = "GET") -> Any:
        """The answer of the server's REST interface. Raises OSError while the server is not up."""
        request = urllib.request.Request(self.url(f"api/{path}"), method=method)
        with _NO_PROXY.open(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_until_up(self, process: subprocess.Popen) -> None:
        def is_up() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"JupyterLab ended with status {process.returncode}:\n{self.log_text()}")
            with contextlib.suppress(OSError):
                return bool(self.api("status"))
            return False

        if not holds_within(START, is_up):
            raise TimeoutError(f"JupyterLab did not answer within {START} s:\n{self.log_text()}")


def _write_settings(folder: Path) -> None:
    """No questions about news and updates, no saving, and every cell in the page whether in sight or not."""
    plugins: dict[str, dict[str, object]] = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "docmanager-extension/plugin": {"autosave": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for plugin, settings in plugins.items():
        file = folder / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))


def own_environment(folder: Path) -> dict[str, str]:
    """An environment in which Jupyter neither reads nor changes the settings of whoever runs the tests."""
    _write_settings(folder / "settings")
    own = {
        "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
    }
    inherited = {k: v for k, v in os.environ.items() if k not in notebooks.UNSTABLE}
    return inherited | {k: str(folder / v) for k, v in own.items()} | {"JUPYTER_PREFER_ENV_PATH": "1"}


@contextlib.contextmanager
def lab_server(tutorials: list[Path], scratch: Path) -> Iterator[Server]:
    """JupyterLab on copies of the notebooks, without their outputs: what a page shows is then what it ran."""
    folder = scratch / "tutorials"
    folder.mkdir()
    for path in tutorials:
        notebook = notebooks.normalise(notebooks.read(path))
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / path.name)
    server = Server(free_port(), secrets.token_hex(16), scratch / "lab.log")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={server.port}", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={server.token}"]
    with server.log.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=own_environment(scratch))
        try:
            server.wait_until_up(process)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def chromium(executable: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_QUIET)
        yield browser
        browser.close()


def kernel_message(frame: bytes) -> tuple[str, dict[str, Any]]:
    """Type and content of a message in Jupyter's binary websocket protocol, v1.

    A frame starts with the number of offsets and the offsets (64 bits each) of: channel, header, parent header,
    metadata, content, buffers.
    """
    count = int.from_bytes(frame[:8], "little")
    offsets = [int.from_bytes(frame[8 * i : 8 * i + 8], "little") for i in range(1, count + 1)]
    _, header, _, _, content, *_ = [frame[start:end] for start, end in pairwise(offsets)]
    return json.loads(header)["msg_type"], json.loads(content)


def pixels(image: Locator) -> str:
    """A fingerprint of a picture as the browser decoded it; "" while it is being replaced."""
    return image.evaluate(
        """async image => {
            if (!image.complete || !image.naturalWidth) return "";
            const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
            return Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join("");
        }"""
    )


class Panel:
    """A LivePanel in the page: the box around a picture."""

    def __init__(self, image: Locator) -> None:
        self.image = image
        self.box = image.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')][1]")
        slider, dropdown = self.box.get_by_role("slider"), self.box.get_by_role("combobox")
        self.has_slider = slider.count() > 0
        self.control = slider.first if self.has_slider else dropdown.first
        if not self.has_slider and not dropdown.count():
            raise ValueError(
                "wanted a panel with a slider or a dropdown; this one has neither: let Panel learn its controls"
            )

    def error(self) -> str:
        """What the panel's line for errors says; "" if nothing."""
        alert = self.box.get_by_role("alert")
        return alert.first.inner_text() if alert.count() else ""

    def value(self) -> str:
        """What the first slider, or else the first dropdown, stands at."""
        return self.control.get_attribute("aria-valuetext") or "" if self.has_slider else self.control.input_value()

    def step(self, direction: int) -> bool:
        """Move it one step up (1) or down (-1); whether it moved: it does not at the end of its range.

        A slider by an arrow key. A dropdown is set: what keys do to it depends on the platform.
        """
        before = self.value()
        if self.has_slider:
            self.control.press("ArrowRight" if direction > 0 else "ArrowLeft")
        else:
            chosen, count = self.control.evaluate("select => [select.selectedIndex, select.length]")
            if 0 <= chosen + direction < count:
                self.control.select_option(index=chosen + direction)
        return self.value() != before

    def pixels(self) -> str:
        return pixels(self.image)


class NotebookPage:
    """A notebook opened in JupyterLab. `complaints` collects everything that went wrong in page and kernel.

    With listen=False the messages of the kernel are not looked at: it takes time, and a benchmark should not pay it.
    """

    def __init__(self, server: Server, browser: Browser, name: str, *, listen: bool = True) -> None:
        self.server, self.name = server, name
        self.complaints: list[str] = []
        self.messages = 0
        self._context = browser.new_context(viewport={"width": 1300, "height": 1000}, locale="en-US")
        self.page: Page = self._context.new_page()
        self.page.on("console", self._read)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page: {error}"))
        if listen:
            self.page.on("websocket", self._listen)
        workspace = f"lab/workspaces/auto-{Path(name).stem}/tree/{name}"
        self.page.goto(server.url(workspace, "&reset"), wait_until="domcontentloaded")
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=START * 1000)
        self._wait_for_idle(START)

    def _read(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def _listen(self, socket: WebSocket) -> None:
        if "/channels" in socket.url:
            socket.on("framereceived", self._hear)

    def _hear(self, frame: str | bytes) -> None:
        """Note errors and stderr, also those of widget callbacks, which JupyterLab shows nowhere in the notebook."""
        if isinstance(frame, str):
            raise TypeError(
                f"wanted the binary kernel protocol, got the text {frame[:80]!r}: kernel_message must learn it"
            )
        kind, content = kernel_message(frame)
        self.messages += 1
        if kind == "error":
            self.complaints.append(f"kernel: {content['ename']}: {content['evalue']}")
        elif kind == "stream" and content["name"] == "stderr" and not _NO_WIDGETS_YET.fullmatch(content["text"]):
            self.complaints.append(f"kernel, stderr: {content['text']}")

    def _wait_for_idle(self, seconds: float) -> None:
        # The notebook's own indicator says idle too early; the status bar follows the connection to the kernel.
        self._wait_unless_failed("#jp-main-statusbar :text('| Idle')", seconds)

    def _wait_unless_failed(self, selector: str, seconds: float) -> None:
        """Wait for an element. Raises RuntimeError if it does not appear, or a cell fails or a dialog opens first."""
        failed = self.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error'], .jp-Dialog")
        try:
            self.page.locator(selector).or_(failed).first.wait_for(timeout=seconds * 1000)
        except PlaywrightTimeout as error:
            prompts = self.page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
            status = self.page.locator("#jp-main-statusbar").all_inner_texts()
            raise RuntimeError(
                f"{self.name}: no {selector} in {seconds} s; cells {prompts}, status {status}"
            ) from error
        if failed.count():
            raise RuntimeError(f"{self.name}: {failed.first.inner_text()}")

    def run_all(self) -> None:
        """Run every cell and wait for the last one. Raises RuntimeError when one fails or a dialog opens."""
        cells = nbformat.read(self.server.log.parent / "tutorials" / self.name, as_version=4).cells
        count = sum(notebooks.is_code(cell) for cell in cells)
        self.page.locator(".jp-NotebookPanel .jp-Cell").first.click()
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        # A cell that has run has a number, the one that runs a star, the others nothing.
        has_run = ".jp-CodeCell .jp-InputPrompt:text-matches('[0-9]')"
        self._wait_unless_failed(f":nth-match({has_run}, {count})", RUN)
        self._wait_for_idle(START)

    def panels(self, count: int) -> list[Panel]:
        """The panels of the notebook, as soon as there are `count` of them and each has its picture."""
        images = self.page.locator(".jp-OutputArea img.widget-image")

        def all_there() -> bool:
            return images.count() >= count and all(map(pixels, images.all()))

        if not holds_within(START, all_there):
            raise TimeoutError(f"{self.name} has {count} panels, the page shows {images.count()} pictures")
        return [Panel(image) for image in images.all()]

    def close(self) -> None:
        """Leave the page and end its kernel."""
        self.page.goto("about:blank")
        for session in self.server.api("sessions"):
            if session["path"] == self.name:
                self.server.api(f"sessions/{session['id']}", "DELETE")
        self._context.close()
