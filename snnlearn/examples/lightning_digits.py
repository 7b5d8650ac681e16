"""Any learning rule in a Lightning module: ``python -m snnlearn.examples.lightning_digits --rule eprop``.

A rule fills ``.grad``, whether it has a backward pass through time or goes forwards; so the module optimises by hand
and calls ``rule.backward`` where another would call ``manual_backward``. A rule backward in time may also return
``rule.objective(...)`` from ``training_step`` and leave the rest to Lightning. Needs ``pip install lightning``.

This is for one process; for several there is ``torchrun -m snnlearn train``, right for every rule.
"""

from __future__ import annotations

import argparse
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from snnlearn import recipes, tasks
from snnlearn.datasets import Split
from snnlearn.losses import accuracy


class Digits(lightning.LightningModule):
    """A network of the digits task, and the rule that trains it.

    Args:
        name: of a recipe, such as "bptt".
        seed: of the weights.
    """

    def __init__(self, name: str = "bptt", seed: int = 0):
        super().__init__()
        self.automatic_optimization = False
        self.task = tasks.suited("digits", name)
        self.net = self.task.network(torch.Generator().manual_seed(seed))
        self.rule = recipes.make(name, self.net, torch.Generator().manual_seed(seed + 1))
        self.feedback = self.rule.spatial  # so that it goes to the device and into the checkpoint with the network

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        """One update."""
        x, y = batch
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = self.rule.backward(self.net, self.task.encode(x), y, self.task.loss)
        optimizer.step()
        self.log("loss", loss, prog_bar=True)

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        """The share of a batch that is answered rightly."""
        x, y = batch
        outputs: Any = self.net(self.task.encode(x), self.rule)
        scores = self.task.loss.scores(self.rule.spatial.answer(outputs))
        self.log("val_accuracy", accuracy(scores, y), batch_size=len(y), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over the network's weights, and feedback weights where they learn."""
        return torch.optim.Adam(self.rule.parameters(self.net), lr=self.task.rate)


def loader(split: Split, batch: int, generator: torch.Generator | None = None) -> DataLoader:
    """Batches of a split, shuffled by a generator where one is given."""
    return DataLoader(TensorDataset(*split), batch, shuffle=generator is not None, generator=generator)


def main(arguments: list[str] | None = None, **trainer: Any) -> float:
    """Train and validate; returns the validation accuracy. Further settings go to Lightning's Trainer."""
    parser = argparse.ArgumentParser(description="Handwritten digits with Lightning.")
    parser.add_argument("--rule", default="bptt", choices=[name for name in recipes.listing() if name != "eventprop"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    module = Digits(given.rule, given.seed)
    data = module.task.load()
    learned = loader(data.train, module.task.batch, torch.Generator().manual_seed(given.seed))
    settings: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    runner = lightning.Trainer(max_epochs=given.epochs, **(settings | trainer))
    runner.fit(module, learned, loader(data.validation, 256))
    return float(runner.callback_metrics["val_accuracy"])


if __name__ == "__main__":
    print(f"validation accuracy {main():.1%}")
