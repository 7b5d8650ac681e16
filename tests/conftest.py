"""Settings for the whole test session."""

import os

import hypothesis
import pytest

# One thread a process: two workers on two cores would start four, and small matrices gain nothing from a second.
# Must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# No time limit in a test; the same examples in every run, so that a red one can be repeated.
hypothesis.settings.register_profile("snnlearn", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("snnlearn")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A layer that a test makes without a generator is the same in every run."""
    import torch

    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how long each notebook took: the tests of the notebooks record it, in whichever worker they ran."""
    seconds = {
        name: value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name.endswith(".ipynb")
    }
    if seconds:
        terminalreporter.section("execution times of the notebooks")
        for name, value in sorted(seconds.items()):
            terminalreporter.line(f"{value:7.1f} s  {name}")
        terminalreporter.line(f"{sum(seconds.values()):7.1f} s  in all")
