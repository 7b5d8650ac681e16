"""Execute the tutorials and normalise them for committing.

    python tests/notebooks.py tutorials/*.ipynb            execute, normalise, write
    python tests/notebooks.py --check tutorials/*.ipynb    only say what is wrong; exit status 1 if anything is

A normalised notebook keeps what a reader sees (sources, texts, pictures) and nothing that changes from run to
run (random cell ids, widget model ids, times), so that its diff is what changed for a reader.
"""

import argparse
import copy
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

TUTORIALS = Path(__file__).parents[1] / "tutorials"

# What a kernel must have, and must not have, so that it prints the same on every machine and terminal.
# One thread: sums are then added in the same order whatever the number of cores.
STABLE = {
    "COLUMNS": "100",
    "LINES": "30",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
}
UNSTABLE = ("FORCE_COLOR", "MPLBACKEND", "MATPLOTLIBRC", "PYTHONWARNINGS")

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_CELL_METADATA = ("tags", "jupyter", "slideshow")
# The tag of a cell whose output is the end of a long training, which rounding decides: nbval does not compare its text.
ROUNDED = "nbval-ignore-output"
_VALID_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# JupyterLab gives new cells a UUID, nbformat eight hexadecimal digits: neither was chosen by anybody.
_RANDOM_ID = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}|[0-9a-f]{8}")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_RULE = re.compile(r"^-{18}$", re.MULTILINE)  # nbclient's, between the cell, what it printed, and the traceback


def stable_environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment in which notebooks are executed for committing and for comparison."""
    return {k: v for k, v in base.items() if k not in UNSTABLE} | STABLE


def is_code(cell: NotebookNode) -> bool:
    """Whether the cell is a code cell that a kernel would run (JupyterLab skips blank ones)."""
    return cell.cell_type == "code" and bool(cell.source.strip())


def panel_outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """The outputs in which the notebook shows a LivePanel."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [o for o in outputs if o.get("data", {}).get("text/plain", "").startswith("LivePanel(")]


def _give_stable_ids(cells: list[NotebookNode]) -> None:
    """Number the cells whose id is missing, random, malformed or taken; leave the others alone."""
    taken: set[str] = set()
    nameless = []
    for position, cell in enumerate(cells):
        name = cell.get("id", "")
        if _VALID_ID.fullmatch(name) and not _RANDOM_ID.fullmatch(name) and name not in taken:
            taken.add(name)
        else:
            nameless.append((position, cell))
    for position, cell in nameless:
        number = position
        while f"cell-{number:03d}" in taken:
            number += 1
        cell["id"] = f"cell-{number:03d}"
        taken.add(cell["id"])


def read(path: Path) -> NotebookNode:
    """Read a notebook and give its cells stable ids. Raises ValueError, with the file's name, if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
            raise ValueError("it has no list of cells")
        if content.get("nbformat") != 4:
            raise ValueError(f"nbformat must be 4, not {content.get('nbformat')!r}; save it again in JupyterLab")
        notebook = nbformat.from_dict(content)
        notebook.nbformat_minor = 5
        _give_stable_ids(notebook.cells)
        nbformat.validate(notebook)
        notebook = nbformat.v4.to_notebook(notebook)
    except (ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a notebook that can be used: {reason}") from error
    return notebook


def normalise(notebook: NotebookNode) -> NotebookNode:
    """A copy without what changes from run to run; execution counts are 1..n, blank cells have none."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(_NOTEBOOK_METADATA)
    _give_stable_ids(notebook.cells)
    count = 0
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in _CELL_METADATA})
        if cell.cell_type != "code":
            continue
        if is_code(cell):
            count += 1
        cell.execution_count = count if is_code(cell) else None
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = cell.execution_count
            # A saved view refers to a model that no longer exists, and hides the picture or text beside it.
            if output.get("data", {}).pop(WIDGET_VIEW, None) and not output.data:
                output.data["text/plain"] = "(a widget: run the notebook to see it)"
    return notebook


def dumps(notebook: NotebookNode) -> str:
    """The notebook as the text of its file."""
    return nbformat.v4.writes(notebook) + "\n"


def write(notebook: NotebookNode, path: Path) -> None:
    """Replace the file at once, so that an interruption cannot leave half a notebook."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(dumps(notebook), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def execute(path: Path, cell_timeout: int = 300) -> tuple[NotebookNode, float]:
    """Execute the notebook in a fresh kernel, in its own folder.

    Returns the normalised notebook and the seconds that the execution took; writes nothing.
    Raises ValueError for a damaged notebook and RuntimeError, with the cell's text, when a cell raises, runs for
    more than cell_timeout seconds, or kills the kernel.
    """
    notebook = read(path)
    running: list[NotebookNode] = []
    client = NotebookClient(
        notebook,
        timeout=cell_timeout,
        kernel_name="python3",
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.resolve().parent)}},
        on_cell_start=lambda cell, cell_index: running.append(cell),
    )
    start = time.perf_counter()
    try:
        client.execute(env=stable_environment())
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        source = running[-1].source if running else "(no cell: the kernel did not start)"
        if isinstance(error, CellExecutionError):
            reason = f"it raised\n{_RULE.split(_ANSI.sub('', error.traceback))[-1].strip()}"
        elif isinstance(error, CellTimeoutError):
            reason = f"it ran for more than {cell_timeout} s"
        else:
            reason = "the kernel died"
        raise RuntimeError(f"{path} failed in the cell\n\n{source}\n\n{reason}") from error
    return normalise(notebook), time.perf_counter() - start


def problems(path: Path) -> list[str]:
    """What keeps the notebook from being committed: cells not executed in order, or anything not normalised."""
    notebook = read(path)
    found = []
    counts = [cell.execution_count for cell in notebook.cells if is_code(cell)]
    if counts != list(range(1, len(counts) + 1)):
        found.append(f"not executed from top to bottom: execution counts are {counts}")
    have = path.read_text(encoding="utf-8").splitlines()
    want = dumps(normalise(notebook)).splitlines()
    if have != want:
        line = next((i for i, pair in enumerate(zip(have, want, strict=False)) if pair[0] != pair[1]), len(want))
        shown = have[line].strip()[:80] if line < len(have) else "(end of file)"
        found.append(f"not normalised: first difference in line {line + 1}: {shown}")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Execute notebooks and normalise them for committing.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 if one is not as it should be"
    )
    parser.add_argument("--cell-timeout", type=int, default=300, metavar="S", help="seconds for each cell (300)")
    options = parser.parse_args(arguments)
    status = 0
    try:
        for path in options.notebooks:
            if options.check:
                found = problems(path)
                print(f"{path}: {'; '.join(found) or 'ok'}")
                status |= bool(found)
            else:
                notebook, seconds = execute(path, options.cell_timeout)
                write(notebook, path)
                print(f"{path}: executed in {seconds:.1f} s")
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
