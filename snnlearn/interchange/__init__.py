"""Networks in NIR, the format that simulators and neuromorphic chips exchange (Pedersen et al. 2024, package `nir`).

    graph = to_nir(network, dt=1e-3)         # a nir.NIRGraph;  write(network, "net.nir") for a file
    network = from_nir(graph, dt=1e-3)       # or read("net.nir")

NIR's neurons live in continuous time, ours (`snnlearn.neurons`) in steps of dt. `snnlearn.interchange.constants` has
the formulas that lead from one to the other: an input is held over its step, and ``decay`` says how the reader of the
graph integrates a leak. A graph of ours also carries what NIR does not say (dt, the decay, the reset, whether the
threshold itself fires), so that its round trip is exact: the same spikes, bit by bit, in the same dtype.

What NIR says, and a foreign graph is therefore read by unless the arguments of `from_nir` tell otherwise:

- a neuron spikes where v exceeds v_threshold (``strict=True``) and is then set to v_reset (`resets.to_zero`);
- a cycle in the graph takes one step, every other connection none; a ``Delay`` adds to that;
- the axes of a Flatten are those of the features, the batch not counted;
- weights, not neurons, have dtypes: the network gets the widest that a weight has.

Refused with a ValueError that names the layer or the node: filters before the synapse (DECOLLE), adaptive neurons, SRM,
`Bounded` and resets of one's own, constants that leave no time constant; in graphs branches, loops over several layers,
v_leak in a readout, v_reset other than v_leak, neurons of kinds not named here.

Other readers, as of 2026, and what they need:

- norse 1.1 integrates by Euler: export with ``decay=euler_decay`` and give norse the same dt. It ignores r of LIF and
  IF, so give LIF layers ``gain=1 - beta``, which makes r = 1, and IF layers a gain of 1. It resets LIF and IF to zero
  in the step of the spike, which is our `to_zero`; of its resets of CubaLIF ``reset_subtract`` is `subtract_decayed`,
  and our `subtract`, one step later, it does not have. Its exporter multiplies time constants by the dt that it is
  given: give it ``dt=1``. An IF of its own has r = 1 and means v += x: set r = 1/dt in that node before reading it.
- snnTorch 1.0 integrates by Euler with dt = 0.1 ms and resets LIF and CubaLIF to zero: give ``dt=1e-4`` and
  ``decay=euler_decay``. It reads an IF as a LIF with a decay of 0.9.
- sinabs 2.0 takes tau for a number of steps, ignores r, and bounds an IF below at minus its threshold: not reconciled.

HDF5 makes no promise about hostile files. What was found to hang it or to fill the memory is refused before it is
opened (`snnlearn.interchange.files`); a file from a stranger is still best read in a process of its own.
"""

from snnlearn.interchange.constants import RESETS as RESETS
from snnlearn.interchange.constants import Scale as Scale
from snnlearn.interchange.exporting import to_nir as to_nir
from snnlearn.interchange.exporting import write as write
from snnlearn.interchange.importing import from_nir as from_nir
from snnlearn.interchange.importing import read as read

__all__ = ["RESETS", "Scale", "from_nir", "read", "to_nir", "write"]
