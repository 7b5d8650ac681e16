import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from snnlearn import cli, notebooks, recipes, tasks, training


def call(*words):
    """The command in this process; returns its exit status."""
    try:
        return cli.main(list(words))
    except SystemExit as stop:
        return stop.code


def process(*words, **settings):
    """The command as a user runs it."""
    return subprocess.Popen(
        [sys.executable, "-m", "snnlearn", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


KEYS = [
    "rule",
    "dataset",
    "seed",
    "epochs",
    "train_accuracy",
    "val_accuracy",
    "test_accuracy",
    "seconds",
    "peak_memory_mb",
]


def test_train_ends_with_one_json_line_and_keeps_progress_off_stdout(tmp_path):
    run = process("train", "digits", "--epochs", "1", "--seed", "3", "--json", cwd=tmp_path)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    last = json.loads(out.splitlines()[-1])
    assert list(last) == KEYS
    assert (last["rule"], last["dataset"], last["seed"], last["epochs"]) == ("bptt", "digits", 3, 1)
    assert 0.1 < last["test_accuracy"] <= 1
    assert "logistic regression" in out
    assert "support vector machine" in out
    assert "100%" in err
    assert "%|" not in out
    saved = json.loads((tmp_path / "runs/digits-bptt-seed3" / training.RESULT).read_text())
    assert saved == last


def test_ctrl_c_and_resume_give_the_same_numbers(tmp_path):
    words = ("train", "digits", "--epochs", "2", "--json", "--out")
    whole = process(*words, str(tmp_path / "whole"))
    cut = process(*words, str(tmp_path / "cut"))
    assert wait_for(tmp_path / "cut" / training.CHECKPOINT)  # one epoch is done
    cut.send_signal(signal.SIGINT)
    _, err = cut.communicate(timeout=300)
    assert cut.returncode == 130, err
    assert "--resume goes on" in err
    assert "Traceback" not in err
    resumed = process(*words, str(tmp_path / "cut"), "--resume")
    lines = [json.loads(p.communicate(timeout=300)[0].splitlines()[-1]) for p in (whole, resumed)]
    for line in lines:
        del line["seconds"], line["peak_memory_mb"]
    assert lines[0] == lines[1]


def wait_for(path, seconds=200):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "digits", "--rule", "btpp"), "unknown rule 'btpp'; did you mean bptt"),
        (("train", "digits", "--rule", "BPTT"), "did you mean bptt"),
        (("train", "digist"), "unknown task 'digist'; did you mean digits?"),
        (("train", "zzzz"), "there are: digits"),
        (("train", "digits", "--epochs", "0"), "epochs must be at least 1, got 0"),
        (("train", "digits", "--threads", "0"), "--threads must be at least 1"),
        (("train", "digits", "--seed", "-4"), "seed must be at least 0"),
        (("train", "digits", "--preset", "deep"), "the task digits has no preset 'deep'"),
        (("train", "digits", "--precision", "fp16"), "precision must be one of float32, float64, bf16, got 'fp16'"),
        (("train", "digits", "--accumulate", "0"), "accumulate must be at least 1, got 0"),
        (("train", "digits", "--checkpoint-every", "0"), "checkpoint_every must be at least 1, got 0"),
        (("train", "digits", "--device", "tpu"), 'device must be "cpu" or "cuda", got \'tpu\''),
        (("train", "digits", "--out", "FILE/x"), "FILE"),
        (("train", "digits", "--out", "EMPTY", "--resume"), "no checkpoint"),
        (("lab", "FILE/x", "--copy-only"), "FILE"),
        (("compare", "digist"), "unknown task 'digist'; did you mean digits?"),
        (("compare", "--rules", "bptt,exdous"), "unknown rule 'exdous'; did you mean exodus"),
        (("compare", "--rules", "bptt", "--reference", "slyaer"), "did you mean slayer"),
        (("compare", "--suited-to", "otpt"), "did you mean ottt"),
        (("compare", "--rules", " ,"), "--rules names no rule; there are: bptt"),
        (("compare", "--samples", "0"), "--samples and --trials must be at least 1"),
        (("compare", "--samples", "700", "--trials", "2"), "their product at most 1257, the training samples; got 700"),
        (("compare", "--seed", "-1"), "--seed must be at least 0"),
    ],
)
def test_errors_of_use_say_what_to_do(words, message, tmp_path, capsys):
    (tmp_path / "FILE").write_text("")
    words = [w.replace("FILE", str(tmp_path / "FILE")).replace("EMPTY", str(tmp_path / "EMPTY")) for w in words]
    assert call(*words) == 2
    err = capsys.readouterr().err
    assert message.replace("FILE", str(tmp_path / "FILE")) in err
    assert "Traceback" not in err


def test_a_damaged_checkpoint_is_named(tmp_path, capsys):
    (tmp_path / training.CHECKPOINT).write_bytes(training.MAGIC + b"0" * 64 + b"\n" + b"cut off")
    assert call("train", "digits", "--out", str(tmp_path), "--resume") == 2
    assert f"{tmp_path / training.CHECKPOINT} is damaged" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="needs a file system that refuses to be written")
def test_an_unwritable_folder_is_named(capsys):
    assert call("train", "digits", "--out", "/proc/snnlearn") == 2
    assert "/proc/snnlearn" in capsys.readouterr().err


def test_train_passes_its_flags_on(tmp_path, capsys):
    flags = ("--precision", "bf16", "--accumulate", "2", "--checkpoint-every", "7", "--tensorboard")
    assert call("train", "digits", "--rule", "exodus", "--epochs", "1", "--out", str(tmp_path), *flags) == 0
    settings = training.read_checkpoint(tmp_path / training.CHECKPOINT)["settings"]
    assert (settings["precision"], settings["accumulate"], settings["device"]) == ("bf16", 2, "cpu")
    assert (tmp_path / "tensorboard").is_dir()
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines if line.endswith("%")}) == 1  # a table


def test_train_takes_a_preset_and_names_the_folder_after_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(tasks.PRESETS, "digits", {"small": lambda rule: tasks.digits(10, 8)})
    monkeypatch.chdir(tmp_path)
    every = []

    def train(task, rule, **settings):
        every.append((task.network(torch.Generator()).layers[0].synapse.out_features, settings))
        raise ValueError("enough")

    monkeypatch.setattr(training, "train", train)
    assert call("train", "digits", "--preset", "small", "--rule", "slayer", "--checkpoint-every", "9") == 2
    ((size, settings),) = every
    assert size == 8
    assert settings["checkpoint_every"] == 9
    assert str(settings["out"]) == "runs/digits-small-slayer-seed0"


# `snnlearn compare`


def compared(capsys, *words):
    """The record that ends the output of `snnlearn compare ... --json`, and the output before it."""
    assert call("compare", *words, "--samples", "8", "--json") == 0
    *lines, last = capsys.readouterr().out.splitlines()
    return json.loads(last), "\n".join(lines)


def test_compare_lays_rules_beside_each_other(capsys):
    words = ("digits", "--rules", "exodus, slayer", "--reference", "bptt", "--seed", "3", "--trials", "2")
    found, shown = compared(capsys, *words, "--same-surrogate")
    about = {"task": "digits", "suited_to": "bptt", "samples": 8, "seed": 3, "trials": 2}
    assert {key: found[key] for key in about} == about
    assert found["reference"] == "bptt"
    assert list(found["rows"]) == ["exodus", "slayer", "bptt"]
    assert found["rows"]["exodus"]["whole"]["cosine"] > 1 - 1e-6
    assert found["rows"]["slayer"]["whole"]["cosine"] < 0.999
    assert list(found["rows"]["bptt"]["weights"]) == ["layers.0.synapse.weight", "layers.1.synapse.weight"]
    for row in found["rows"].values():
        assert row["memory"]["peak"] > row["memory"]["kept"] > 50 * 8 * 128 * 4  # a membrane for each step and neuron
        assert row["seconds"] > 0
    for word in ("cosine", "norm ratio", "same sign", "bias", "kept kB", "peak MB", "ms", "g_ref that of bptt"):
        assert word in shown
    # without the flag the recipes differ in their surrogates as well
    own, shown = compared(capsys, *words)
    assert own["rows"]["exodus"]["whole"]["cosine"] < 0.9999
    assert "each with its own surrogate" in shown


def test_compare_sets_the_task_up_as_a_rule_needs_it(capsys):
    found, shown = compared(capsys, "--rules", "bptt,slayer,ottt", "--suited-to", "ottt")
    assert list(found["rows"]) == ["bptt", "slayer", "ottt"]
    assert shown.startswith("digits as ottt needs it, 8 samples")
    kept = {name: row["memory"]["kept"] for name, row in found["rows"].items()}
    assert kept["ottt"] < kept["bptt"] / 3
    by_default = compared(capsys, "--rules", "bptt", "--reference", "ottt")[0]
    assert list(by_default["rows"]) == ["bptt", "ottt"]
    assert by_default["rows"]["bptt"]["loss"] == found["rows"]["bptt"]["loss"]
    assert list(compared(capsys, "--rules", "bptt,ottt", "--suited-to", "bptt")[0]["refused"]) == ["ottt"]
    serving = compared(capsys, "--rules", "exodus,slayer,superspike")[0]
    assert (serving["suited_to"], serving["refused"]) == ("superspike", {})


def test_compare_repeats_itself_and_follows_its_settings(capsys):
    def numbers(*words):
        found = compared(capsys, "--rules", "bptt,slayer", *words)[0]
        for row in found["rows"].values():
            del row["seconds"], row["spread"]
        return found["rows"]

    once = numbers()
    assert numbers("digits", "--seed", "0", "--trials", "1") == once
    assert numbers("--seed", "1") != once
    assert numbers("--trials", "3")["slayer"]["whole"]["noise"] > 0
    assert numbers("--trials", "3")["slayer"]["whole"]["cosine"] == once["slayer"]["whole"]["cosine"]


def test_compare_takes_the_first_batch_of_training(capsys):
    task = tasks.digits()
    run = training._Run(task, recipes.bptt(), "bptt", 5, 1)
    assert call("compare", "--rules", "bptt", "--seed", "5", "--json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["rows"]["bptt"]["loss"] == pytest.approx(run.step(), rel=1e-6)


def test_compare_says_why_a_rule_is_left_out(capsys, monkeypatch):
    from snnlearn import Rule
    from snnlearn.temporal import RTRL

    def needs_more(network=None):
        raise TypeError("needs_more wants a network")

    known = recipes.listing() | {"forward": lambda: Rule(temporal=RTRL()), "needs_more": needs_more}
    monkeypatch.setattr(recipes, "listing", lambda: known)
    found, shown = compared(capsys, "--rules", "bptt,forward,needs_more,slayer")
    assert list(found["rows"]) == ["bptt", "slayer"]
    assert list(found["refused"]) == ["forward", "needs_more"]
    assert "forward: left out, since RTRL learns forward in time" in shown
    assert "needs_more: left out, since needs_more wants a network" in shown
    assert call("compare", "--rules", "needs_more,bptt") == 2
    assert "needs_more wants a network" in capsys.readouterr().err
    assert call("compare", "--rules", "forward,bptt") == 2
    assert "the reference 'forward' gives no gradient: RTRL learns" in capsys.readouterr().err


def test_rules_lists_every_recipe_with_its_paper(capsys):
    assert call("rules") == 0
    out = capsys.readouterr().out
    for name, recipe in recipes.listing().items():
        assert name in out
        assert recipe.paper in out


def test_info_says_what_is_there_and_why_not(capsys, monkeypatch):
    assert call("info") == 0
    out = capsys.readouterr().out
    assert torch.__version__ in out
    assert f"{torch.get_num_threads()} threads" in out
    assert "jupyterlab" in out
    if not torch.cuda.is_available():
        assert "device cuda        not available: " in out
    for name in ("cpu kernels", "cuda kernels"):
        (line,) = (line for line in out.splitlines() if line.startswith(name))
        assert re.match("[a-z ]{18} (built: |not built yet|not available: |off: )", line)
    monkeypatch.setattr("snnlearn.info.PACKAGES", ("no-such-package",))
    monkeypatch.setattr("snnlearn.info.EXTRAS", {"nor-this-one": "scale"})
    call("info")
    out = capsys.readouterr().out
    assert 'not installed; pip install "snnlearn"' in out
    assert 'not installed; pip install "snnlearn[scale]"' in out


def test_no_command_and_version(capsys):
    assert call() == 2
    assert "usage: snnlearn" in capsys.readouterr().err
    assert call("--version") == 0
    assert capsys.readouterr().out.startswith("snnlearn 0")


# `snnlearn lab`


@pytest.fixture
def source(tmp_path, monkeypatch):
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("01_a.ipynb", "02_b.ipynb"):
        (folder / name).write_text(f"first {name}")
    monkeypatch.setattr(notebooks, "tutorials", lambda: folder)
    return folder


def test_lab_copies_keeps_edits_and_brings_up_to_date(source, tmp_path, capsys):
    mine = tmp_path / "mine"
    assert call("lab", str(mine), "--copy-only") == 0
    assert (mine / "01_a.ipynb").read_text() == "first 01_a.ipynb"
    (mine / "01_a.ipynb").write_text("my own words")
    for name in ("01_a.ipynb", "02_b.ipynb", "03_c.ipynb"):
        (source / name).write_text(f"second {name}")
    capsys.readouterr()
    assert call("lab", str(mine), "--copy-only") == 0
    out = capsys.readouterr().out
    assert "01_a.ipynb: kept, since you have changed it" in out
    assert "02_b.ipynb: brought up to date" in out
    assert "03_c.ipynb: copied" in out
    assert (mine / "01_a.ipynb").read_text() == "my own words"
    assert (mine / "02_b.ipynb").read_text() == "second 02_b.ipynb"
    assert call("lab", str(mine), "--copy-only") == 0
    assert capsys.readouterr().out.count("up to date") == 2


def test_lab_refuses_a_damaged_record(source, tmp_path, capsys):
    mine = tmp_path / "mine"
    call("lab", str(mine), "--copy-only")
    for damage in ("{", "[]"):
        (mine / notebooks.RECORD).write_text(damage)
        assert call("lab", str(mine), "--copy-only") == 2
        assert str(mine / notebooks.RECORD) in capsys.readouterr().err


def test_lab_starts_jupyterlab_on_the_folder(source, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "call", lambda command: started.append(command) or 0)
    assert call("lab", str(tmp_path / "mine"), "--no-browser", "--port", "8890") == 0
    (command,) = started
    assert command[1:3] == ["-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={(tmp_path / 'mine').resolve()}" in command
    assert "--LabApp.default_url=/lab/tree/01_a.ipynb" in command
    assert {"--no-browser", "--port=8890"} <= set(command)


def test_lab_without_jupyterlab_says_how_to_get_it(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert call("lab", str(tmp_path / "mine")) == 2
    assert 'jupyterlab is not installed; pip install "snnlearn[lab]"' in capsys.readouterr().err


def test_the_real_tutorials_are_found():
    assert notebooks.tutorials().joinpath("01_one_neuron.ipynb").exists()


def test_grid_shows_all_or_one_pair(capsys):
    from snnlearn import grid

    assert call("grid") == 0
    assert capsys.readouterr().out.strip() == grid.table()
    assert call("grid", "eligibility", "local_errors") == 0
    out = capsys.readouterr().out
    assert "DECOLLE" in out
    assert "biased: leaves out the reset" in out
    assert "O(N) for a sample and layer, work O(N²) a step" in out
    assert call("grid", "eventprop") == 0
    out = capsys.readouterr().out
    assert out.count("eventprop x ") >= 4
    assert "refused    an output's error has no place in time" in out
    assert call("grid", "eprob") == 2
    assert "unknown way through time 'eprob'; did you mean eprop" in capsys.readouterr().err
    assert call("grid", "eprop", "lokal") == 2
    assert "unknown way through layers 'lokal'" in capsys.readouterr().err
