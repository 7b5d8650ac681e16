"""Training in several processes, in parts, in fewer bits, through kills; and what it leaves in files."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from two_processes import RULES, SUM, TASK, few, task_for

from snnlearn import Layer, LocalErrors, Network, Rule, cuba_lif, readout, recipes, tasks, training
from snnlearn.datasets import Dataset, Recordings, Split
from snnlearn.events import Events
from snnlearn.spatial import keep_active
from snnlearn.training import metrics, precision

HERE = Path(__file__).parent
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def script(name, folder):
    subprocess.run([sys.executable, name, str(folder)], cwd=HERE, env=ONE_THREAD, check=True, timeout=600)


def near(one, other, bound):
    """Whether tensors agree within a bound relative to the largest entry of each pair."""
    pairs = list(zip(one, other, strict=True))
    return all((a - b).abs().max() <= bound * max(b.abs().max(), 1e-12) for a, b in pairs)


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def numbers(result):
    """All that two equal runs share."""
    return {k: v for k, v in result.items() if k not in ("seconds", "peak_memory_mb")}


def rows(folder):
    """The metrics without the clock."""
    with open(folder / training.METRICS) as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


# Several processes


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process and two have found, with the folder."""
    folder = tmp_path_factory.mktemp("two")
    script("two_processes.py", folder)
    alone, *both = (torch.load(folder / f"{name}.pt") for name in ("0 of 1", "0 of 2", "1 of 2"))
    return alone, both, folder


@pytest.mark.parametrize("name", [*RULES, SUM])
def test_two_processes_find_the_gradients_of_one(name, found):
    alone, both, _ = found
    wanted = alone["gradients"][name]
    for mine in (process["gradients"][name] for process in both):
        for (loss, gradients), (its_loss, its_gradients) in zip(mine["steps"], wanted["steps"], strict=True):
            assert loss == pytest.approx(its_loss, rel=1e-6)
            assert near(gradients, its_gradients, 1e-6)
        assert near(mine["weights"], wanted["weights"], 1e-6)
    assert equal(*(process["gradients"][name]["weights"] for process in both))  # or they would drift apart
    assert all(any(g.abs().max() > 0 for g in gradients) for _, gradients in wanted["steps"])


def test_processes_that_accumulate_find_the_gradients_of_one(found):
    alone, both, _ = found
    assert near(both[0]["accumulated"]["weights"], alone["gradients"]["bptt"]["weights"], 1e-6)


def test_two_processes_train_to_the_numbers_of_one(found):
    alone, both, folder = found
    for process in both:
        assert near(process["net"], alone["net"], 1e-6)
        assert numbers(process["result"]) == numbers(alone["result"])
    one, two = (rows(folder / f"of {n}") for n in (1, 2))
    assert [row["val_accuracy"] for row in two] == [row["val_accuracy"] for row in one]
    assert [float(row["loss"]) for row in two] == pytest.approx([float(row["loss"]) for row in one], rel=1e-6)
    assert len(two) == 3
    assert {p.name for p in (folder / "of 2").iterdir()} == {p.name for p in (folder / "of 1").iterdir()}


def test_a_signal_to_one_process_stops_all_after_the_same_step(found):
    _, both, _ = found
    for process in both:
        stopped, weights = process["interrupted"]
        assert stopped == 6
        assert equal(weights, process["net"])  # as if never stopped


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("BatchNorm1d", r"layers\.0\.synapse\.1 \(BatchNorm1d\) takes its statistics over the whole batch"),
        ("Dropout", r"layers\.0\.synapse\.1 \(Dropout\) draws at random"),
        ("regularizer", "regularizer of LocalErrors looks at the activity of the whole batch"),
        ("folder", "cannot be written"),
    ],
)
def test_all_processes_refuse_and_say_why(what, message, found):
    for process in found[1]:
        assert re.search(message, process["refusals"][what])


@pytest.mark.parametrize("kind", ["LIF", "Network"])
def test_modules_work_under_distributed_data_parallel(kind, found):
    alone, both, _ = found
    for process in both:
        assert near(process["wrapped"][kind], alone["wrapped"][kind], 1e-9)


def test_parts_are_a_batch_without_overlap():
    for samples, size, accumulate in ((5, 2, 1), (1, 3, 2), (7, 3, 50), (6, 1, 4)):
        chosen = torch.randperm(samples)
        parts = [part for rank in range(size) for part in training.Group(rank, size).parts(chosen, accumulate)]
        assert torch.equal(torch.cat(parts), chosen)
        shares = [sum(map(len, training.Group(rank, size).parts(chosen))) for rank in range(size)]
        assert max(shares) - min(shares) <= 1
        assert all(len(part) for part in parts)


def test_torchrun_trains_the_command_lines_task(tmp_path):
    """The whole way: two processes started by torchrun, and the same command alone."""
    words = ["-m", "snnlearn", "train", "digits", "--rule", "ottt", "--epochs", "1", "--precision", "float64", "--json"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    settings = {"capture_output": True, "text": True, "env": ONE_THREAD, "cwd": tmp_path, "timeout": 600}
    two = subprocess.run([*torchrun, *words, "--out", "two"], **settings)
    assert two.returncode == 0, two.stderr
    one = subprocess.run([sys.executable, *words, "--out", "one"], **settings)
    last = [json.loads(run.stdout.splitlines()[-1]) for run in (one, two)]
    assert numbers(last[0]) == numbers(last[1])
    assert two.stdout.count("saved in") == 1  # one of them prints
    nets = [tasks.suited("digits", "ottt").network(torch.Generator()).double() for _ in last]
    for net, folder in zip(nets, ("one", "two"), strict=True):
        training.load_weights(net, tmp_path / folder / training.WEIGHTS)
    assert near(nets[1].state_dict().values(), nets[0].state_dict().values(), 1e-6)


# Parts of a batch, one after another


@pytest.mark.parametrize("name", [*RULES, SUM])
def test_micro_batches_add_up_to_the_batch(name):
    """Five samples as 2 + 2 + 1, and one by one."""
    rule = RULES.get(name, RULES["bptt"])
    losses, gradients = [], []
    for pieces in (1, 3, 50):
        run = training._Run(task_for(name), rule, name, 0, 1, accumulate=pieces, precision="float64")
        losses.append(run.step())
        gradients.append([p.grad.clone() for p in run.parameters])
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-6)
    assert near(gradients[1], gradients[0], 1e-6)
    assert near(gradients[2], gradients[0], 1e-6)
    assert any(g.abs().max() > 0 for g in gradients[0])


def test_micro_batches_take_less_memory_at_once():
    seen = []

    def encode(x):
        seen.append(len(x))
        return TASK.encode(x)

    training._Run(replace(TASK, encode=encode), recipes.bptt(), "", 0, 1, accumulate=4).step()
    assert seen == [3, 3, 3, 2]


def test_recordings_and_events_are_taken_in_parts_too():
    """Spikes held flat, dense for a `Network` and as events for an `EventNetwork`."""
    draw = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 30, (9,), generator=draw)
    total = int(counts.sum())
    times = torch.cat([torch.randint(9_000, (n,), generator=draw).sort().values for n in counts.tolist()])
    pointer = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    x = Recordings(times, torch.randint(128, (total,), generator=draw), pointer, (128,))
    split = Split(x, torch.arange(9))
    data = Dataset(split, split, split, 10)

    def events(x):
        return Events.from_times(torch.where(x.counts() > 0, 0.01 / x.counts(), math.inf))

    for base, rule, encode in (
        (tasks.digits(10, 8), recipes.bptt(), lambda x: x.dense(10)),
        (tasks.digits_events(), recipes.eventprop(), events),
    ):
        task = replace(base, load=lambda: data, encode=encode, batch=5)
        runs = [training._Run(task, rule, "", 0, 1, accumulate=k, precision="float64") for k in (1, 2)]
        assert runs[0].step() == pytest.approx(runs[1].step(), rel=1e-6)
        assert near(*([p.grad for p in run.parameters] for run in runs), 1e-6)
        training.train(task, rule, epochs=1, accumulate=2)


def test_accumulation_refuses_what_looks_at_the_batch():
    def network(generator):
        synapse = nn.Sequential(nn.Linear(128, 8), nn.BatchNorm1d(8))
        return Network(Layer(synapse, cuba_lif()), Layer(nn.Linear(8, 10), readout()))

    def active(net, generator):
        return Rule(spatial=LocalErrors.random(net, generator, regularizer=keep_active))

    with pytest.raises(ValueError, match="takes its statistics over the whole batch"):
        training.train(replace(TASK, network=network), recipes.bptt(), accumulate=2)
    with pytest.raises(ValueError, match="regularizer of LocalErrors"):
        training.train(few(tasks.digits_online(10, 8), 6), active, accumulate=2)
    training.train(replace(TASK, network=network), recipes.bptt(), epochs=1)
    with pytest.raises(ValueError, match="accumulate must be at least 1"):
        training.train(TASK, recipes.bptt(), accumulate=0)


# Precision


def compared(name, seed=0):
    """Traces and gradients of a batch in float32 and with products in bfloat16."""
    task = tasks.suited("digits", "eprop" if name == "adaptive_eprop" else name)
    net = task.network(torch.Generator().manual_seed(seed))
    rule = RULES[name](net, torch.Generator().manual_seed(seed + 1))
    data = task.load().train
    chosen = slice(8 if name == "rtrl" else 64)
    x, y = task.encode(data.x[chosen]), data.y[chosen]
    found = []
    for kind in ("float32", "bf16"):
        with training.products(kind):
            found.append((net(x, rule), rule.gradients(net, x, y, task.loss)[1]))
    return found


@pytest.mark.parametrize("name", [name for name in RULES if name != "eventprop"])
def test_products_in_bfloat16_are_safe(name):
    """At most a tenth of the spikes moves, the gradient by less than 3 degrees and 1 % of its length."""
    (traces, gradients), (rough, its) = compared(name)
    for trace, other in zip(traces[:-1], rough[:-1], strict=True):
        assert other.U.dtype == other.s.dtype == torch.float32
        assert 0 < (trace.s != other.s).sum() < 0.1 * trace.s.sum()
        assert abs(other.s.sum() / trace.s.sum() - 1) < 0.01
    one, other = (torch.cat([g.flatten() for g in found.values()]) for found in (gradients, its))
    assert other.dtype == torch.float32
    assert functional.cosine_similarity(one, other, 0) > math.cos(math.radians(3))
    assert abs(other.norm() / one.norm() - 1) < 0.01


def test_bfloat16_learns_as_float32_does():
    task = replace(tasks.digits(20, 32), epochs=4)
    one, other = (training.train(task, recipes.exodus(), precision=kind)[1] for kind in ("float32", "bf16"))
    assert other.val_accuracy > 0.7
    assert abs(one.val_accuracy - other.val_accuracy) < 0.08
    assert one.train_accuracy != other.train_accuracy  # or nothing was done in bfloat16


def test_only_products_are_rough():
    x, w = torch.randn(4, 8), torch.randn(3, 8)
    with training.products("bf16"):
        rough = functional.linear(x, w)
        assert (x * x).dtype == (x @ w.T).dtype == torch.float32
        image = functional.conv2d(torch.ones(1, 1, 3, 3), torch.full((1, 1, 3, 3), 0.3))
    assert rough.dtype == torch.float32
    assert torch.equal(rough, rough.bfloat16().float())
    assert not torch.equal(rough, functional.linear(x, w))
    assert image.item() == torch.tensor(image.item()).bfloat16().item()
    assert torch.equal(functional.linear(x, w), x @ w.T)  # nothing is left behind


def test_float64_throughout():
    for name in ("superspike", "kolen_pollack", "eventprop"):
        net, _ = training.train(task_for(name), RULES[name], precision="float64", epochs=1)
        assert {p.dtype for p in net.parameters()} == {torch.float64}


def test_a_precision_or_device_that_cannot_be_had_is_refused():
    with pytest.raises(
        ValueError, match="precision must be one of float32, float64, bf16, got 'fp16'; in float16 small"
    ):
        training.train(TASK, recipes.bptt(), precision="fp16")
    with pytest.raises(ValueError, match="EventNetwork computes spike times in closed form"):
        training.train(task_for("eventprop"), recipes.eventprop(), precision="bf16")
    with pytest.raises(ValueError, match='device must be "cpu" or "cuda", got \'tpu\''):
        training.train(TASK, recipes.bptt(), device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no GPU"):
            training.train(TASK, recipes.bptt(), device="cuda")
    assert precision.PRECISIONS["bf16"] == torch.float32


# Kills


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    script("killed_runs.py", folder)
    return torch.load(folder / "found.pt")


@pytest.mark.parametrize("way", ["writing", "clock"])
def test_a_run_killed_again_and_again_comes_to_the_same_numbers(way, killed):
    weights, result, files = killed["whole"]
    mine, its_result, its_files, left = killed[way]
    assert equal(mine, weights)
    assert numbers(its_result) == numbers(result)
    table, its_table = ([line.rsplit(",", 1)[0] for line in f["lines"]] for f in (files, its_files))
    assert its_table == table  # no row doubled, none missing
    assert len(table) == 4
    assert its_files["files"] == files["files"]  # and nothing half written is left
    assert len(left) >= 5
    for moment in left:  # what is there is whole at any time
        assert [line.rsplit(",", 1)[0] for line in moment["lines"]] == table[: len(moment["lines"])]
    if way == "writing":
        assert {"metrics.csv", "checkpoint.pt"} <= {
            name.rsplit(".", 2)[0] for moment in left for name in moment["files"] if name.endswith(".tmp")
        }


def test_dropout_goes_on_where_it_was(tmp_path, monkeypatch):
    """Negative control: with other draws the end is another."""

    def network(generator):
        first, second = (tasks.linear(*shape, 0.5, generator) for shape in ((128, 12), (12, 10)))
        return Network(Layer(nn.Sequential(nn.Dropout(), first), cuba_lif()), Layer(second, readout()))

    task, before = replace(TASK, network=network), torch.get_rng_state()
    whole = training.train(task, recipes.bptt())[0]
    assert torch.equal(torch.get_rng_state(), before)
    ends = []
    for change in (False, True):
        out = tmp_path / str(change)
        plain = training._Run.step

        def step(self, plain=plain):
            if self.done == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return plain(self)

        monkeypatch.setattr(training._Run, "step", step)
        with pytest.raises(KeyboardInterrupt):
            training.train(task, recipes.bptt(), out=out)
        monkeypatch.undo()
        if change:
            state = training.read_checkpoint(out / training.CHECKPOINT)
            training.write_checkpoint(out / training.CHECKPOINT, state | {"draws": torch.get_rng_state()})
        ends.append(training.train(task, recipes.bptt(), out=out, resume=True)[0])
    same, other = (equal(net.state_dict().values(), whole.state_dict().values()) for net in ends)
    assert same
    assert not other


def test_checkpoints_within_an_epoch(tmp_path, monkeypatch):
    done = []
    plain = training._Run.save
    monkeypatch.setattr(training._Run, "save", lambda self, folder: (done.append(self.done), plain(self, folder)))
    training.train(TASK, recipes.bptt(), epochs=2, out=tmp_path, checkpoint_every=3)
    assert done == [3, 4, 6, 8]
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1"):
        training.train(TASK, recipes.bptt(), checkpoint_every=0)


def test_a_name_is_on_disk_before_a_write_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    training.write(tmp_path / "x", b"new")
    assert synced == [(tmp_path / "x").stat().st_ino, tmp_path.stat().st_ino]


# Metrics


def test_metrics_have_a_row_an_epoch(tmp_path):
    _, result = training.train(TASK, recipes.bptt(), out=tmp_path)
    with open(tmp_path / training.METRICS) as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["epoch", "step", "loss", "val_accuracy", "rate", "seconds"]
    assert [(row["epoch"], row["step"]) for row in table] == [("1", "4"), ("2", "8"), ("3", "12")]
    assert float(table[-1]["val_accuracy"]) == result.val_accuracy
    assert [float(row["rate"]) for row in table] == pytest.approx(
        [TASK.rate * (1 + math.cos(math.pi * step / 12)) / 2 for step in (3, 7, 11)]
    )
    seconds = [float(row["seconds"]) for row in table]
    assert 0 < seconds[0] < seconds[1] < seconds[2] < result.seconds


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples(tmp_path):
    run = training._Run(TASK, recipes.bptt(), "", 0, 1)
    losses = [run.step() for _ in range(run.steps)]
    training.train(TASK, recipes.bptt(), epochs=1, out=tmp_path)
    assert float(rows(tmp_path)[0]["loss"]) == pytest.approx((11 * sum(losses[:3]) + 10 * losses[3]) / 43)


def test_tensorboard_shows_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training.train(TASK, recipes.bptt(), out=tmp_path, tensorboard=True)
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("loss", "val_accuracy", "rate"):
        points = shown.Scalars(name)
        assert [point.step for point in points] == [4, 8, 12]
        assert [point.value for point in points] == pytest.approx([float(row[name]) for row in rows(tmp_path)])


def test_tensorboard_takes_back_what_a_killed_run_had_shown_too_much(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, steps in ((0, (4, 8)), (4, (8, 12))):
        with metrics.board(tmp_path, done) as show:
            for step in steps:
                show(metrics.Row(step // 4, step, loss=done + step, val_accuracy=0.5, rate=0.1, seconds=1.0))
    points = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(point.step, point.value) for point in points] == [(4, 4), (8, 12), (12, 16)]


def test_what_is_missing_is_named_before_training(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="tensorboard needs a folder"):
        training.train(TASK, recipes.bptt(), tensorboard=True)
    monkeypatch.setattr(training._Run, "step", lambda self: pytest.fail("it had begun"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r'pip install "snnlearn\[scale\]"'):
        training.train(TASK, recipes.bptt(), out=tmp_path, tensorboard=True)


def test_without_safetensors_a_run_is_whole_but_for_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r'safetensors is missing .*"snnlearn\[scale\]"'):
        net, _ = training.train(TASK, recipes.bptt(), out=tmp_path, epochs=1)
    assert sorted(os.listdir(tmp_path)) == [training.CHECKPOINT, training.METRICS, training.RESULT]
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ValueError, match=r'pip install "snnlearn\[scale\]"'):
        training.save_weights(net, tmp_path / "w")


# Weights


def networks():
    """The same network twice, with other weights, and feedback for each."""
    for seed in (0, 1):
        net = tasks.digits(10, 12).network(torch.Generator().manual_seed(seed))
        yield net, recipes.feedback_alignment(net, torch.Generator().manual_seed(seed))


def test_weights_come_back_with_feedback_and_what_is_told_of_them(tmp_path):
    (net, rule), (other, other_rule) = networks()
    path = tmp_path / "w.safetensors"
    training.save_weights(net, path, {"rule": "fa", "note": "größer"}, rule=rule)
    assert training.load_weights(other, path)["note"] == "größer"
    assert equal(other.state_dict().values(), net.state_dict().values())
    assert not equal(other_rule.spatial.state_dict().values(), rule.spatial.state_dict().values())
    training.load_weights(other, path, rule=other_rule)
    assert equal(other_rule.spatial.state_dict().values(), rule.spatial.state_dict().values())
    from safetensors.torch import load_file

    assert set(load_file(path)) == {
        "layers.0.synapse.weight", "layers.1.synapse.weight", "spatial.backs.0.weight"
    }  # fmt: skip
    with pytest.raises(TypeError, match="metadata must be text"):
        training.save_weights(net, path, {"seed": 3})


def test_training_leaves_its_weights(tmp_path):
    net, _ = training.train(TASK, recipes.feedback_alignment, name="fa", out=tmp_path, epochs=1)
    fresh = TASK.network(torch.Generator())
    rule = recipes.feedback_alignment(fresh, torch.Generator())
    told = training.load_weights(fresh, tmp_path / training.WEIGHTS, rule=rule)
    assert equal(fresh.state_dict().values(), net.state_dict().values())
    assert (told["rule"], told["dataset"], told["seed"], told["epochs"]) == ("fa", "digits", "0", "1")


def test_damaged_weights_are_refused_by_name(tmp_path):
    (net, rule), (other, _) = networks()
    path = tmp_path / "w.safetensors"
    training.save_weights(net, path, {"rule": "fa"}, rule=rule)
    whole, before = path.read_bytes(), [p.clone() for p in other.state_dict().values()]
    damages = [b"", b"junk", whole[:7], whole[:40], whole[: len(whole) // 2], whole[:-1], whole + b"x", b"\xff" * 64]
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in (*range(header), (header + len(whole)) // 2, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[place] ^= 4
        damages.append(bytes(flipped))
    for damage in damages:
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"w\.safetensors (is damaged|does not fit)"):
            training.load_weights(other, path)
    assert equal(other.state_dict().values(), before)
    with pytest.raises(ValueError, match=r"no file of weights .*nowhere"):
        training.load_weights(other, tmp_path / "nowhere")


def test_weights_that_do_not_fit_are_named(tmp_path):
    (net, rule), _ = networks()
    path = tmp_path / "w.safetensors"
    training.save_weights(net, path)
    larger = tasks.digits(10, 13).network(torch.Generator())
    before = [p.clone() for p in larger.state_dict().values()]
    with pytest.raises(
        ValueError, match=r"layers\.0\.synapse\.weight is \(12, 128\) torch.float32, the network's \(13"
    ):
        training.load_weights(larger, path)
    assert equal(larger.state_dict().values(), before)
    with pytest.raises(ValueError, match=r"spatial\.backs\.0\.weight is missing"):
        training.load_weights(net, path, rule=rule)
    with pytest.raises(ValueError, match=r"float32, the network's .*float64"):
        training.load_weights(net.double(), path)
    with pytest.raises(ValueError, match=r"layers\.1\.synapse\.weight is not of this network"):
        training.load_weights(Network(net.float().layers[0]), path)


def test_weights_of_tied_layers_and_of_any_module(tmp_path):
    synapse = nn.Linear(8, 8, bias=False)
    net, other = (Network(Layer(s, cuba_lif()), Layer(s, readout())) for s in (synapse, nn.Linear(8, 8, bias=False)))
    training.save_weights(net, tmp_path / "w")
    training.load_weights(other, tmp_path / "w")
    assert torch.equal(other.layers[1].synapse.weight, synapse.weight)
    norm = nn.BatchNorm1d(3).to(torch.bfloat16)
    training.save_weights(norm, tmp_path / "n")
    training.load_weights(nn.BatchNorm1d(3).to(torch.bfloat16), tmp_path / "n")


# Beside other libraries


def test_the_lightning_example_learns():
    pytest.importorskip("lightning")
    from snnlearn.examples import lightning_digits

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "limit_train_batches": 8}
    for words in (["--rule", "exodus"], ["--rule", "direct_feedback_alignment"]):
        assert lightning_digits.main([*words, "--epochs", "1"], **quiet) > 0.3  # chance is 0.1


# What a run refuses


def test_a_checkpoint_of_a_task_with_other_augmentation_is_refused(tmp_path):
    task = replace(few(tasks.digits(10, 8), 40, 20), batch=16)
    training.train(task, recipes.exodus(), name="x", epochs=1, out=tmp_path)
    (tmp_path / training.RESULT).unlink()
    moved = replace(task, augment=augment)
    with pytest.raises(ValueError, match=r"augment None, not .*augment"):
        training.train(moved, recipes.exodus(), name="x", epochs=1, out=tmp_path, resume=True)
    training.train(task, recipes.exodus(), name="x", epochs=1, out=tmp_path, resume=True)


def augment(x, generator):
    return x


@pytest.mark.parametrize(("place", "name"), list(enumerate(["training", "validation", "test"])))
def test_an_empty_split_is_refused_before_anything_is_learned(place, name):
    task = few(tasks.digits(10, 8), 40, 20)
    splits = list(task.load())
    splits[place] = Split(splits[place].x[:0], splits[place].y[:0])
    with pytest.raises(ValueError, match=f"the {name} split is empty"):
        training.train(replace(task, load=lambda: Dataset(*splits)), recipes.exodus(), epochs=1)


def test_a_network_of_float64_stays_so_and_float32_can_be_asked_for():
    def network(generator):
        return tasks.digits(10, 8).network(generator).double()

    task = replace(few(tasks.digits(10, 8), 40, 20), network=network)
    assert next(training.train(task, recipes.exodus(), epochs=1)[0].parameters()).dtype == torch.float64
    assert (
        next(training.train(task, recipes.exodus(), epochs=1, precision="float32")[0].parameters()).dtype
        == torch.float32
    )
