"""A pytest plugin for the nbval run: PYTHONPATH=tests python -m pytest -p nbval_plugin --nbval ... tutorials/

nbval starts the kernels in its own environment and, in version 0.11, with store_history=False, which makes IPython
ignore a trailing ";" (nbval issue 194): the value of such a cell would show up under nbval only. This plugin gives
the kernels the environment in which the notebooks were made, and runs cells with history, as JupyterLab does.
"""

import os

import pytest
from nbval.kernel import RunningKernel
from notebooks import UNSTABLE, stable_environment


def _execute_with_history(self: RunningKernel, cell_input: str, allow_stdin: bool | None = None) -> str:
    return self.kc.execute(cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("nbval"):
        for name in UNSTABLE:
            os.environ.pop(name, None)
        os.environ.update(stable_environment())
        RunningKernel.execute_cell_input = _execute_with_history
