"""The scripts of figures/: each runs, and what is committed beside it says what its own numbers say."""

import importlib
import json
import sys
from pathlib import Path

import matplotlib
import pytest
import torch

FOLDER = Path(__file__).parents[1] / "figures"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")
KEYS = {"paper", "here", "settings", "claims", "versions"}
LARGEST = 150_000


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """The folder on the path, as Python has it when it runs one of them; what they set is put back."""
    threads, backend = torch.get_num_threads(), matplotlib.get_backend()
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))
    torch.set_num_threads(threads)
    matplotlib.use(backend)


@pytest.fixture
def common():
    return importlib.import_module("common")


def kept(path):
    def refuse(value):
        raise AssertionError(f"{path.name} has {value}, which is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def looks_like_a_picture(path):
    content = path.read_bytes()
    return (
        content.startswith(b"\x89PNG\r\n") and content.rstrip().endswith(b"IEND\xaeB`\x82") and len(content) < LARGEST
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(name, tmp_path):
    importlib.import_module(name).main(["--quick", "--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.json", f"{name}.png"]
    assert looks_like_a_picture(tmp_path / f"{name}.png")
    found = kept(tmp_path / f"{name}.json")
    assert set(found) == KEYS
    assert all(found.values())


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_committed_agrees_with_itself(name):
    found = kept(FOLDER / f"{name}.json")
    assert set(found) == KEYS
    assert set(found["versions"]) == {"torch", "snnlearn"}
    assert found["claims"] == importlib.import_module(name).claims(found["here"])
    assert looks_like_a_picture(FOLDER / f"{name}.png")


def test_each_file_has_its_script():
    made = {path.stem for path in FOLDER.iterdir() if path.suffix in (".json", ".png")}
    assert made == set(SCRIPTS)


def test_the_list_names_every_script():
    listed = (FOLDER / "README.md").read_text()
    assert [name for name in SCRIPTS if f"{name}.py" not in listed] == []


def test_quick_results_do_not_go_where_the_kept_ones_are(common, capsys):
    with pytest.raises(SystemExit):
        common.arguments("A figure.", ["--quick"])
    assert "--out" in capsys.readouterr().err


def test_numbers_are_written_as_json_has_them(common):
    x = {0.1: float("nan"), "t": torch.tensor([1.23456, 7.0]), "n": [123456, True, None, 98765.4]}
    assert common.rounded(x) == {"0.1": None, "t": [1.235, 7.0], "n": [123456, True, None, 98770.0]}


def numbers(**changed):
    return {"paper": "one", "here": {"value": 1.00001}, "settings": {"seed": 0}, "claims": {"it is so": True}} | changed


def test_claims_are_made_of_the_numbers_in_the_file(common, tmp_path):
    figure = common.canvas()
    common.save(tmp_path, "some", figure, numbers(claims=lambda here: {"it is one": here["value"] == 1.0}))
    assert kept(tmp_path / "some.json")["claims"] == {"it is one": True}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (numbers(extra=1), "paper, here, settings, claims"),
        ({"paper": "one"}, "paper, here, settings, claims"),
        (numbers(claims={"perhaps": 0.5}), "perhaps"),
    ],
    ids=["one more", "too few", "neither true nor false"],
)
def test_what_cannot_be_kept_is_refused(common, tmp_path, wrong, said):
    with pytest.raises(ValueError, match=said):
        common.save(tmp_path, "some", common.canvas(), wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_stays_large_is_refused(common, tmp_path):
    figure = common.canvas(12, 12)
    noise = torch.rand(900, 900, generator=torch.Generator().manual_seed(0)).numpy()
    figure.subplots().imshow(noise, interpolation="nearest", cmap="gray")
    with pytest.raises(ValueError, match="bytes"):
        common.save(tmp_path, "some", figure, numbers())
    assert list(tmp_path.iterdir()) == []


def test_the_data_that_is_there(common, tmp_path, capsys, monkeypatch):
    shipped, theirs = common.data("shd", None), object()
    assert shipped[1] == "digits"
    assert "--data" in capsys.readouterr().out
    assert common.data("shd", tmp_path)[1] == "digits"  # asked for, and not there
    assert "shd_train.h5" in capsys.readouterr().out
    monkeypatch.setattr(common.datasets, "load", lambda name, root: theirs)
    assert common.data("shd", tmp_path) == (theirs, "shd")
    assert str(tmp_path) in capsys.readouterr().out
