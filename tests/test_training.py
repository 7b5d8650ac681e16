import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from snnlearn import Adjoint, DirectFeedback, FeedbackAlignment, LocalErrors, Network, Rule, recipes, tasks, training
from snnlearn.spatial import keep_active

TASK = replace(tasks.digits(steps=10, hidden=12), epochs=2, batch=256)  # 5 steps an epoch


def run(out=None, **settings):
    return training.train(TASK, recipes.bptt(), name="bptt", out=out, **settings)


def numbers(result):
    """All that two equal runs share."""
    return {k: v for k, v in asdict(result).items() if k not in ("seconds", "peak_memory_mb")}


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def interrupt_after(monkeypatch, steps, number=signal.SIGINT):
    """Send this process a signal while a step is being computed."""
    plain = training._Run.step

    def step(self):
        if self.done == steps:
            os.kill(os.getpid(), number)
        return plain(self)

    monkeypatch.setattr(training._Run, "step", step)


def test_same_seed_same_numbers_other_seed_others():
    (net, result), (twin, again), (other, _) = run(), run(), run(seed=1)
    assert numbers(result) == numbers(again)
    assert same_weights(net, twin)
    assert not same_weights(net, other)


def test_training_learns():
    _, result = run(epochs=12)
    assert result.val_accuracy > 0.35  # chance is 0.1; ten steps, twelve neurons, sixty updates
    assert 0 < result.peak_memory_mb < 1e5
    assert result.seconds > 0
    assert (result.rule, result.dataset, result.seed, result.epochs) == ("bptt", "digits", 0, 12)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("steps", [1, 5, 7])  # within an epoch, at its end, within the last
def test_interrupted_and_resumed_is_as_if_never_stopped(steps, number, tmp_path, monkeypatch):
    net, result = run()
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt_after(patch, steps, number)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    state = training.read_checkpoint(tmp_path / training.CHECKPOINT)
    assert state["done"] == steps + 1  # the step that was being computed is finished and kept
    assert signal.getsignal(signal.SIGINT) is before  # which is to ignore it where a shell runs us in the background
    resumed, again = run(tmp_path, resume=True)
    assert numbers(again) == numbers(result)
    assert same_weights(resumed, net)
    assert json.loads((tmp_path / training.RESULT).read_text())["test_accuracy"] == result.test_accuracy
    assert set(os.listdir(tmp_path)) == {training.CHECKPOINT, training.METRICS, training.RESULT, training.WEIGHTS}


def test_resuming_without_the_generator_would_differ(tmp_path, monkeypatch):
    """Negative control: the state of the data order matters."""
    net, _ = run()
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)  # the next epoch draws a new order
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    state = training.read_checkpoint(tmp_path / training.CHECKPOINT)
    state["generator"] = torch.Generator().manual_seed(5).get_state()
    training.write_checkpoint(tmp_path / training.CHECKPOINT, state)
    assert not same_weights(run(tmp_path, resume=True)[0], net)


def test_killed_run_resumes_from_its_last_epoch(tmp_path):
    """SIGKILL leaves no chance to save: the last whole epoch is there, and the end is the same."""
    code = (
        "from test_training import run, training\nimport os, signal, sys\n"
        "plain = training._Run.step\n"
        "def step(self):\n"
        "    if self.done == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return plain(self)\n"
        "training._Run.step = step\nrun(sys.argv[1])\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parent, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert training.read_checkpoint(tmp_path / training.CHECKPOINT)["done"] == 5
    net, result = run()
    resumed, again = run(tmp_path, resume=True)
    assert numbers(again) == numbers(result)
    assert same_weights(resumed, net)


def test_a_finished_run_may_be_repeated_and_resumed(tmp_path):
    _, first = run(tmp_path)
    _, resumed = run(tmp_path, resume=True)
    _, again = run(tmp_path)
    assert numbers(first) == numbers(resumed) == numbers(again)


def test_training_outside_the_main_thread(tmp_path):
    got = []
    thread = threading.Thread(target=lambda: got.append(run(tmp_path)[1]))
    thread.start()
    thread.join()
    assert numbers(got[0]) == numbers(run()[1])


def test_an_unfinished_run_is_not_overwritten(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    with pytest.raises(ValueError, match="unfinished run; add --resume"):
        run(tmp_path)
    for change in ({"seed": 3}, {"epochs": 3}):
        with pytest.raises(ValueError, match=rf"another run: it has {next(iter(change))} .*, not 3"):
            run(tmp_path, resume=True, **change)
    with pytest.raises(ValueError, match="another run: it has rule 'bptt', not 'other'"):
        training.train(TASK, recipes.bptt(), name="other", out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="another run: it has batch 256, not 128"):
        training.train(replace(TASK, batch=128), recipes.bptt(), name="bptt", out=tmp_path, resume=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    with pytest.raises(ValueError, match=f"another run: it has threads {threads}, not"):
        run(tmp_path, resume=True)
    torch.set_num_threads(threads)


def test_damaged_checkpoints_are_refused_by_name(tmp_path):
    run(tmp_path)
    path = tmp_path / training.CHECKPOINT
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # one bit, in the middle of a weight: torch alone would load it
    for damage in (b"", b"junk", whole[: len(whole) // 2], whole[:60], bytes(flipped), whole + b"x"):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is (damaged|not a checkpoint)"):
            run(tmp_path, resume=True)
    path.write_bytes(whole)
    state = training.read_checkpoint(path)
    state["network"]["layers.0.synapse.weight"] = torch.zeros(3, 3)
    training.write_checkpoint(path, state)
    with pytest.raises(ValueError, match=r"checkpoint\.pt does not fit this network"):
        run(tmp_path, resume=True)


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    training.write_checkpoint(tmp_path / training.CHECKPOINT, {"settings": {}, "done": Evil()})
    with pytest.raises(ValueError, match="damaged"):
        run(tmp_path, resume=True)
    assert not (tmp_path / "was here").exists()


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint .*checkpoint\.pt to resume"):
        run(tmp_path, resume=True)
    with pytest.raises(ValueError, match="give out"):
        run(resume=True)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file cannot be written"):
        run(tmp_path / "file")


def test_wrong_arguments():
    for task, rule in (("digits", recipes.bptt()), (TASK, "bptt")):
        with pytest.raises(TypeError, match=r"a Task and a Rule, such as tasks.digits\(\)"):
            training.train(task, rule)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**63}, "below 2"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        run(**change)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    training.write(path, b"old")

    def full(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        training.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_seconds_go_on_counting(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    before = training.read_checkpoint(tmp_path / training.CHECKPOINT)["seconds"]
    started = time.perf_counter()
    _, result = run(tmp_path, resume=True)
    assert before < result.seconds <= before + time.perf_counter() - started
    assert math.isfinite(result.seconds)


# Rules with weights of their own.

LEARNED = replace(TASK, decay=1.0)


def kolen_pollack(net, generator):
    return Rule(temporal=Adjoint(), spatial=FeedbackAlignment.kolen_pollack(net, generator))


def test_feedback_that_learns_is_trained_and_resumed(tmp_path, monkeypatch):
    made = []

    def rule(net, generator):
        made.append((kolen_pollack(net, generator), net))
        return made[-1][0]

    settings = {"name": "kolen pollack", "epochs": 4}
    net, whole = training.train(LEARNED, rule, **settings)
    start = kolen_pollack(LEARNED.network(torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1))
    fresh = LEARNED.network(torch.Generator().manual_seed(0))
    assert made[0][0].spatial.angles(net)[0] < start.spatial.angles(fresh)[0] - 1
    interrupt_after(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        training.train(LEARNED, rule, out=tmp_path, **settings)
    monkeypatch.undo()
    again, result = training.train(LEARNED, rule, out=tmp_path, resume=True, **settings)
    assert numbers(result) == numbers(whole)
    assert same_weights(again, net)
    assert same_weights(made[2][0].spatial, made[0][0].spatial)


def test_another_feedback_or_decay_is_another_run(tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        training.train(LEARNED, kolen_pollack, out=tmp_path)
    monkeypatch.undo()
    for task, rule, what in (
        (LEARNED, recipes.feedback_alignment, "method"),
        (replace(LEARNED, decay=0.5), kolen_pollack, "decay"),
    ):
        with pytest.raises(ValueError, match=rf"belongs to another run: it has {what}"):
            training.train(task, rule, out=tmp_path, resume=True)


def test_every_kind_of_feedback_says_what_it_is():
    net, g = TASK.network(torch.Generator()), torch.Generator()
    kinds = [
        FeedbackAlignment.random(net, g),
        FeedbackAlignment.concordant(net, g),
        FeedbackAlignment.kolen_pollack(net, g),
        DirectFeedback.random(net, g),
        DirectFeedback.random(net, g, through_readout=True),
        DirectFeedback.adaptive(net, g),
        LocalErrors.random(net, g),
        LocalErrors.random(net, g, trained=True),
        LocalErrors.random(net, g, regularizer=keep_active),
    ]
    assert len({repr(Rule(spatial=kind)) for kind in kinds}) == len(kinds)
    assert " at 0x" not in "".join(repr(Rule(spatial=kind)) for kind in kinds)


def test_decay_makes_weights_smaller():
    plain, decayed = (training.train(replace(TASK, decay=d), recipes.bptt(), epochs=4)[0] for d in (0.0, 5.0))
    sizes = [sum(p.square().sum() for p in net.parameters()) for net in (plain, decayed)]
    assert sizes[1] < 0.9 * sizes[0]


def test_a_network_that_fires_on_top_answers_through_its_critic():
    base = tasks.digits_decolle(steps=10, hidden=12)

    def network(generator):
        return Network(base.network(generator).layers[0])

    task = replace(base, network=network, epochs=3, batch=256)
    net, result = training.train(task, lambda net, g: recipes.decolle(net, g, classes=10))
    assert len(net.layers) == 1
    assert result.train_accuracy > 0.2  # chance is 0.1; twelve neurons have no answer of their own among ten classes


def test_a_function_that_makes_no_rule_is_refused():
    with pytest.raises(TypeError, match="rule must make a Rule"):
        training.train(TASK, lambda net, generator: net)


def test_a_file_in_a_folder_that_is_not_there_names_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere for net.nir; make it first"):
        training.write(tmp_path / "nowhere" / "net.nir", b"")
