"""What tests of the compiled kernels share."""

import pytest


@pytest.fixture(scope="session")
def compiled():
    """The package of the kernels, loaded; skips where there is no compiler. Sources that do not compile are a failure.

    A module takes it with ``from kernel_tools import compiled as compiled`` and, for all of its tests,
    ``pytestmark = pytest.mark.usefixtures("compiled")``.
    """
    from snnlearn import kernels

    try:
        kernels.load()
    except kernels.MissingTool as reason:
        pytest.skip(f"the kernels cannot be compiled here: {reason}")
    if not kernels.ready():
        pytest.skip("the kernels are off: unset SNNLEARN_KERNELS")
    return kernels
