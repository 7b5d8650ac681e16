"""How long a slider takes from the key press to the new picture, in JupyterLab in headless Chromium.

    python tests/bench_slider.py [--presses N] [tutorials/*.ipynb]

The time is taken in the page: from the key event's arrival to the animation frame after the new picture has been
decoded. So it holds the way to the kernel, the callback, matplotlib, the PNG and the way back, and none of what
drives the browser.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import lab
import notebooks

WARM_UP = 5  # key presses
PAUSE = 0.05  # s between a picture and the next key press, so that presses do not queue
NO_PICTURE = 5000  # ms after which a key press counts as one that changes nothing

# Resolves to the milliseconds from the next key press to the frame that shows the image's next source, or to null.
_ARM = """(image, patience) => {
    window.latency = new Promise(resolve => {
        let start = null;
        window.addEventListener("keydown", () => { start = performance.now(); }, { capture: true, once: true });
        const observer = new MutationObserver(async () => {
            observer.disconnect();
            try { await image.decode(); } catch { }  // replaced by a still newer one
            requestAnimationFrame(() => resolve(performance.now() - start));
        });
        observer.observe(image, { attributes: true, attributeFilter: ["src"] });
        setTimeout(() => { observer.disconnect(); resolve(null); }, patience);
    });
}"""


def latencies(panel: lab.Panel, presses: int) -> list[float | None]:
    """Milliseconds for each of so many key presses on the panel's first slider, to and fro; None: no new picture."""
    found: list[float | None] = []
    direction = 1
    panel.control.scroll_into_view_if_needed()
    stuck = 0
    while len(found) < WARM_UP + presses:
        panel.image.evaluate(_ARM, NO_PICTURE)
        if panel.step(direction):
            found.append(panel.image.evaluate("() => window.latency"))
            stuck = 0
        else:
            direction = -direction
            stuck += 1
            if stuck == 2:
                raise RuntimeError(f"the slider does not move from {panel.value()}")
        time.sleep(PAUSE)
    return found[WARM_UP:]


def machine(browser_version: str) -> str:
    packages = ("torch", "matplotlib", "ipywidgets", "ipykernel", "jupyterlab")
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {platform.system()} {platform.machine()}; {', '.join(versions)}, Chromium {browser_version}"


def row(times: list[float | None]) -> str:
    """Median and 95th percentile in ms, number of pictures, number of key presses that made none."""
    seen = [t for t in times if t is not None]
    median, p95 = (statistics.quantiles(seen, n=20)[i] for i in (9, 18)) if len(seen) > 1 else (float("nan"),) * 2
    return f"{median:7.0f} {p95:6.0f} {len(seen):5d} {len(times) - len(seen):9d}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Key press to new picture, for the first slider of every panel.")
    parser.add_argument("tutorials", nargs="*", type=Path, default=sorted(notebooks.TUTORIALS.glob("*.ipynb")))
    parser.add_argument("--presses", type=int, default=60, help="for each panel (60)")
    options = parser.parse_args()
    executable = lab.find_chromium()
    if executable is None:
        print("no chromium: install it, or set CHROMIUM to the path of one", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory() as scratch,
        lab.chromium(executable) as browser,
        lab.lab_server(options.tutorials, Path(scratch)) as server,
    ):
        print(machine(browser.version))
        print(f"{'':32} {'median':>7} {'p95':>6} {'n':>5} {'unchanged':>9}   (ms from key press to new picture)")
        for path in options.tutorials:
            notebook = lab.NotebookPage(server, browser, path.name, listen=False)
            notebook.run_all()
            for number, panel in enumerate(notebook.panels(len(notebooks.panel_outputs(notebooks.read(path)))), 1):
                result = row(latencies(panel, options.presses)) if panel.has_slider else "no slider"
                print(f"{path.stem[:22]:22} panel {number:<3} {result}", flush=True)
            notebook.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
