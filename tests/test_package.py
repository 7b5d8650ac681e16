"""What a reader installs: the wheel, and the lines of the README."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted(p.name for p in (ROOT / "tutorials").glob("*.ipynb"))
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".venv", ".git", "runs", ".*_cache", "__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        file.extractall(folder / "installed")
    return folder / "installed"


def test_the_wheel_carries_the_notebooks_and_nothing_foreign(wheel):
    assert TUTORIALS
    assert sorted(p.name for p in (wheel / "snnlearn/_tutorials").glob("*.ipynb")) == TUTORIALS
    tops = {p.name for p in wheel.iterdir()}
    assert tops == {"snnlearn", f"snnlearn-{PROJECT['version']}.dist-info"}
    assert (wheel / f"snnlearn-{PROJECT['version']}.dist-info/licenses/LICENSE").exists()


def test_the_wheel_carries_the_sources_of_the_kernels(wheel):
    """They are compiled where they are installed."""
    kernels = ROOT / "snnlearn/kernels"
    names = sorted(p.name for p in kernels.iterdir() if p.suffix in {".h", ".cpp", ".cu"})
    assert {"lif.h", "scan.cpp"} <= set(names)
    for name in names:
        assert (wheel / "snnlearn/kernels" / name).read_bytes() == (kernels / name).read_bytes()


def test_the_wheel_works_on_its_own(wheel, tmp_path):
    """`snnlearn lab` from an installed package copies the notebooks out of it."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import snnlearn; assert snnlearn.__file__.startswith(sys.argv[1]), snnlearn.__file__\n"
        "from snnlearn.cli import main; raise SystemExit(main(['lab', 'mine', '--copy-only']))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(wheel)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "mine").glob("*.ipynb")) == TUTORIALS


def test_versions_agree():
    import snnlearn

    assert snnlearn.__version__ == PROJECT["version"]
    constraints = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert constraints["torch"] == "2.13.0"
    needed = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lab"]
    for name in (re.match(r"[\w.-]+", line).group() for line in needed):
        assert name in constraints, f"{name} has no tested version"


def test_the_readme_names_every_tutorial_and_its_python_runs(tmp_path):
    for name in TUTORIALS:
        assert f"tutorials/{name}" in README
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"


def test_the_readme_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert "@@" not in README
    for link in links:
        assert (ROOT / link).exists(), link


def test_no_path_of_a_machine_and_no_registry_is_named():
    forbidden = re.compile("/home/" + r"\w|/ro" + r"ot/|https?://\S+/(simple|whl)\b")
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        if path.suffix in {".py", ".md", ".toml", ".txt", ".ipynb", ""} and path.is_file() and inside[0][0] != ".":
            assert not forbidden.search(path.read_text(errors="ignore")), path
