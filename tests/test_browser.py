"""The tutorials as a reader meets them: JupyterLab in a browser, all cells run, sliders moved by keyboard."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
import notebooks
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytest.importorskip("playwright", reason="no playwright: pip install -e '.[test]'")

import lab
from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

ROOT = notebooks.TUTORIALS.parent
TUTORIALS = sorted(notebooks.TUTORIALS.glob("*.ipynb"))
STEPS = 3  # of a slider: one step may be smaller than a pixel

# Errors and failures in the server's log; kernels write into it too. A kernel that died is only a warning there.
BAD_LINE = re.compile(r"^\[[EC] |Traceback|\bERROR\b|\bCRITICAL\b|KernelRestarter", re.MULTILINE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = lab.find_chromium()
    if executable is None:
        pytest.skip("no chromium: install it, or set CHROMIUM to the path of one")
    with lab.chromium(executable) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Server]:
    with lab.lab_server(TUTORIALS, tmp_path_factory.mktemp("lab")) as server:
        yield server


# One notebook with everything that the test of the tutorials must not let pass.
BROKEN = """
import itertools
import sys

import ipywidgets
from IPython.display import Javascript, display
from snnlearn.widgets import LivePanel

count = itertools.count()


def panel(height):
    def draw(axes, artists, x):
        if artists is None:
            artists = {"line": axes[0].plot([0, 1])[0]}
        artists["line"].set_ydata([0, height(x)])
        return artists

    slider = ipywidgets.IntSlider(0, min=0, max=9)
    display(LivePanel(draw, {"x": slider}))
    return slider


panel(lambda x: 0.5)  # does not follow
panel(lambda x: 1 / (2 + next(count)))  # does not come back
panel(lambda x: 1 / (1 - x))  # fails at x = 1
panel(lambda x: x / 9).observe(lambda change: 1 / 0, "value")  # an exception that the notebook shows nowhere
display(Javascript("console.error('a broken script')"))
print("a warning", file=sys.stderr)
"""


def move_there_and_back(panel: lab.Panel) -> None:
    """Move the panel's first control: the picture must change, and be the same again when the control is back."""

    def state() -> str:
        return f"control at {panel.value()}, error line: {panel.error() or 'empty'}"

    def changed() -> bool:
        return panel.pixels() not in ("", first)

    panel.control.scroll_into_view_if_needed()
    first = panel.pixels()
    there = 1
    if not panel.step(there):
        there = -1
        assert panel.step(there), f"the control does not move from {panel.value()}"
    steps = 1
    while steps < STEPS and not lab.holds_within(lab.ANSWER / 10, changed) and panel.step(there):
        steps += 1
    assert lab.holds_within(lab.ANSWER, changed), f"no new picture; {state()}"
    assert not panel.error()
    for _ in range(steps):
        assert panel.step(-there)
    assert lab.holds_within(lab.ANSWER, lambda: panel.pixels() == first), f"not the first picture again; {state()}"


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_all_cells_run_and_every_slider_moves_its_picture(path: Path, browser: Browser, server: lab.Server) -> None:
    logged = len(server.log_text())
    notebook = lab.NotebookPage(server, browser, path.name)
    try:
        notebook.run_all()
        panels = notebook.panels(len(notebooks.panel_outputs(notebooks.read(path))))
        assert panels, f"no panels in {path.name}"
        for panel in panels:
            assert panel.image.is_visible()
            move_there_and_back(panel)
        assert notebook.messages, "no message of the kernel was heard: its errors would go unnoticed"
        assert not notebook.complaints
    finally:
        notebook.close()
    assert not BAD_LINE.search(server.log_text()[logged:]), server.log_text()[logged:]


def test_broken_panels_and_hidden_errors_are_found(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "ANSWER", 5)
    path = tmp_path / "broken.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(BROKEN)]), path)
    with lab.lab_server([path], tmp_path) as server:
        notebook = lab.NotebookPage(server, browser, path.name)
        notebook.run_all()
        still, wandering, failing, hiding = notebook.panels(4)
        with pytest.raises(AssertionError, match="no new picture; control at 3, error line: empty"):
            move_there_and_back(still)
        with pytest.raises(AssertionError, match="not the first picture again; control at 0"):
            move_there_and_back(wandering)
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            move_there_and_back(failing)
        move_there_and_back(hiding)
        heard = "\n".join(notebook.complaints)
        notebook.close()
    assert "console: a broken script" in heard
    assert "kernel, stderr: a warning" in heard
    assert "ZeroDivisionError: division by zero" in heard


def stand_in_environment(folder: Path) -> Path:
    """A VENV for the Makefile, up to date, whose python is the one of the tests and notes what it is asked to run."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / ".lab-installed").touch()
    return folder


def without_make(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the options of a make that runs the tests."""
    return {k: v for k, v in environment.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_lab_serves_the_tutorials_without_installing_again(tmp_path: Path) -> None:
    environment = stand_in_environment(tmp_path / "environment")
    server = lab.Server(lab.free_port(), "a-token", tmp_path / "lab.log")
    options = f"--no-browser --port={server.port} --IdentityProvider.token={server.token}"
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            ["make", "lab", f"VENV={environment}", f"LAB_ARGS={options}"],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env=without_make(lab.own_environment(tmp_path)),
            start_new_session=True,
        )
        try:
            server.wait_until_up(process)
            served = {entry["name"] for entry in server.api("contents")["content"]}
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    assert {path.name for path in TUTORIALS} <= served
    calls = (environment / "calls").read_text()
    assert "jupyterlab" in calls
    assert "pip" not in calls


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_lab_installs_when_the_requirements_are_newer(tmp_path: Path) -> None:
    environment = stand_in_environment(tmp_path / "environment")

    def would_run() -> str:
        command = ["make", "--dry-run", "lab", f"VENV={environment}"]
        environ = without_make(os.environ)
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout

    assert "pip install" not in would_run()
    os.utime(environment / ".lab-installed", (0, 0))
    assert re.search(r'pip install .*-c constraints\.txt -e "\.\[lab\]"', would_run())
