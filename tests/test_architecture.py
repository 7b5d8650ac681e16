"""The floors: a file imports only from lower ones, and the public surface is what the package says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import snnlearn

ROOT = Path(snnlearn.__file__).parent
FLOORS = [
    ["_checks"],
    ["kernels"],
    ["filters", "optim", "resets", "encoding", "implicit", "eventprop", "spikes"],
    ["datasets"],
    ["losses"],
    ["neurons"],
    ["learned", "adaptive"],
    ["surrogate"],
    ["spatial"],
    ["temporal"],
    ["srm", "events", "online"],
    ["network", "nn", "firstspike"],
    ["sparse"],
    ["eventpath"],
    ["eventrecurrent"],
    ["eventlayers", "eventconv"],
    ["rule"],
    ["recipes", "tasks", "footprint", "grid"],
    ["training", "microscope", "bench"],
    ["data", "examples", "interchange"],
    ["plots", "painting"],
    ["widgets"],
    ["lessons"],
    ["notebooks", "info"],
    ["cli"],
    ["__main__"],
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
FILES = sorted(p for p in ROOT.rglob("*.py") if "_tutorials" not in p.parts and p != ROOT / "__init__.py")


def imported(path):
    """The modules of snnlearn, by their first name, that a file imports."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):  # what only the type checker sees is no dependency
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name"
            names = [node.module] if node.module != "snnlearn" else [f"snnlearn.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "snnlearn" and parts[1:] and parts[1] != "__version__":
                yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_from_lower_floors_only(path):
    name = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert name in FLOOR, f"{name} has no floor: give it one in this test"
    for other in imported(path):
        below = FLOOR[other] < FLOOR[name] or other == name or {other, name} in SIDE_BY_SIDE
        assert below, f"{name} imports {other}, which is not below it"


SIDE_BY_SIDE: list[set[str]] = []


def test_the_check_bites(tmp_path):
    bad = tmp_path / "neurons.py"
    bad.write_text("from snnlearn.rule import Rule\n")
    assert list(imported(bad)) == ["rule"]
    assert FLOOR["rule"] > FLOOR["neurons"]


def test_importing_the_library_loads_no_notebook_and_no_plotting():
    code = (
        "import sys, snnlearn\n"
        "print([m for m in ('ipywidgets', 'IPython', 'matplotlib', 'jupyterlab', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_a_star_import_leaves_torch_its_nn():
    names: dict = {}
    exec("from torch import nn\nfrom snnlearn import *", names)
    assert hasattr(names["nn"], "Linear")
    assert {"LIF", "Network", "recipes", "losses"} <= set(names)


def test_no_file_grows_past_400_lines():
    long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_docstring_examples(path):
    import doctest
    import importlib

    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    if parts[-1] == "__main__":
        pytest.skip("runs the command line on import")
    if parts[1:] == ("examples", "lightning_digits"):
        pytest.importorskip("lightning")
    module = importlib.import_module(".".join(p for p in parts if p != "__init__"))
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE, extraglobs={"nn": snnlearn.nn.nn})
    assert failed == 0
