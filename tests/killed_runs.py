"""Runs that are killed over and over and resumed; a script whose results are files in a folder.

Each is a forked process, which spares it the start; the process that forks computes nothing, so that it has no
threads. One is killed between and within the steps of writing files, the other at moments of a clock.
"""

import math
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from two_processes import LEARNED, few

from snnlearn import Layer, Network, cuba_lif, readout, tasks, training
from snnlearn.training import checkpoints

KILLS = 14


def network(generator):
    """With something that draws at random: its draws must go on, too."""
    first, second = (tasks.linear(*shape, 0.5, generator) for shape in ((128, 12), (12, 10)))
    return Network(Layer(nn.Sequential(nn.Dropout(0.2), first), cuba_lif()), Layer(second, readout(), gain=0.05))


TASK = replace(few(tasks.digits(10, 12), 100, 50), network=network, batch=32, epochs=3, decay=0.1)


def run(out):
    """From the beginning, or from the checkpoint that is there."""
    resume = (out / training.CHECKPOINT).exists()
    return training.train(
        TASK, LEARNED["kolen_pollack"], name="kp", out=out, resume=resume, checkpoint_every=3, precision="float64"
    )


def die_at(moment):
    """Kill this process at the so manieth moment of writing: half a file, all of it, before and after its renaming."""
    left = [moment]

    def tick():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(function):
        def ticking(*arguments):
            tick()
            found = function(*arguments)
            tick()
            return found

        return ticking

    class Halves:
        def __init__(self, *arguments):
            self.file = open(*arguments)  # noqa: SIM115

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            tick()
            self.file.write(content[len(content) // 2 :])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    os.fsync, os.replace = around(os.fsync), around(os.replace)
    checkpoints.open = Halves


def ending(out):
    """What the run in a folder came to."""
    return out.with_suffix(".pt")


def attempt(out, moment=None, seconds=math.inf):
    """One process, killed at a moment of writing or after a time; whether it was, before its end."""
    child = os.fork()
    if child == 0:
        if moment is not None:
            die_at(moment)
        net, result = run(out)
        torch.save((list(net.state_dict().values()), vars(result)), ending(out))
        os._exit(0)
    end = time.monotonic() + seconds
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.001)
    assert found[1] in (0, signal.SIGKILL), found
    return found[1] == signal.SIGKILL


def look(out):
    """What a killed run has left: it must be readable."""
    done = 0
    if (out / training.CHECKPOINT).exists():
        done = training.read_checkpoint(out / training.CHECKPOINT)["done"]
    lines = (out / training.METRICS).read_text().splitlines() if (out / training.METRICS).exists() else []
    return {"done": done, "lines": lines, "files": sorted(os.listdir(out)) if out.exists() else []}


def main(folder):
    torch.set_num_threads(1)
    draw = random.Random(5)
    attempt(folder / "whole")  # not in this process, which is forked and so must not have computed anything
    started = time.monotonic()
    attempt(folder / "timed")
    took = time.monotonic() - started
    found = {"whole": (*torch.load(ending(folder / "whole")), look(folder / "whole"))}
    for way in ("writing", "clock"):
        out, left = folder / way, []
        for _ in range(KILLS):
            if way == "writing":
                killed = attempt(out, moment=draw.randint(1, 30))
            else:
                killed = attempt(out, seconds=draw.uniform(0, 0.6 * took))
            if not killed:
                break
            left.append(look(out))
        if killed:
            attempt(out)
        found[way] = (*torch.load(ending(out)), look(out), left)
    torch.save(found, folder / "found.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
