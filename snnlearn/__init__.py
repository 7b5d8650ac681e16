"""snnlearn: learn how spiking neural networks learn.

A rule is a triple of plain objects: what replaces the derivative of the step (`surrogate`), how credit travels
through time (`temporal`), and how it travels through layers (`spatial`). `recipes` names the papers' rules.
"""

from snnlearn import encoding as encoding
from snnlearn import events as events
from snnlearn import filters as filters
from snnlearn import kernels as kernels
from snnlearn import losses as losses
from snnlearn import optim as optim
from snnlearn import recipes as recipes
from snnlearn.adaptive import Adaptive as Adaptive
from snnlearn.adaptive import alif as alif
from snnlearn.eventconv import ConvLIF as ConvLIF
from snnlearn.eventlayers import LinearLIF as LinearLIF
from snnlearn.eventrecurrent import RecurrentLIF as RecurrentLIF
from snnlearn.events import EventLIF as EventLIF
from snnlearn.events import EventNetwork as EventNetwork
from snnlearn.learned import Learned as Learned
from snnlearn.losses import CrossEntropy as CrossEntropy
from snnlearn.losses import OverTime as OverTime
from snnlearn.losses import SpikeCount as SpikeCount
from snnlearn.network import Layer as Layer
from snnlearn.network import Network as Network
from snnlearn.neurons import Analog as Analog
from snnlearn.neurons import Neuron as Neuron
from snnlearn.neurons import State as State
from snnlearn.neurons import Threshold as Threshold
from snnlearn.neurons import Trace as Trace
from snnlearn.neurons import cuba_lif as cuba_lif
from snnlearn.neurons import euler_decay as euler_decay
from snnlearn.neurons import exp_decay as exp_decay
from snnlearn.neurons import iaf as iaf
from snnlearn.neurons import lif as lif
from snnlearn.neurons import readout as readout
from snnlearn.nn import LIF as LIF
from snnlearn.nn import PerStep as PerStep
from snnlearn.resets import Bounded as Bounded
from snnlearn.resets import no_reset as no_reset
from snnlearn.resets import subtract as subtract
from snnlearn.resets import subtract_decayed as subtract_decayed
from snnlearn.resets import to_zero as to_zero
from snnlearn.resets import to_zero_with_input as to_zero_with_input
from snnlearn.rule import Rule as Rule
from snnlearn.sparse import Near as Near
from snnlearn.spatial import DirectFeedback as DirectFeedback
from snnlearn.spatial import FeedbackAlignment as FeedbackAlignment
from snnlearn.spatial import LocalErrors as LocalErrors
from snnlearn.spatial import Spatial as Spatial
from snnlearn.spatial import Transpose as Transpose
from snnlearn.spikes import Spikes as Spikes
from snnlearn.srm import SRM as SRM
from snnlearn.srm import AdjointSRM as AdjointSRM
from snnlearn.surrogate import ArcTan as ArcTan
from snnlearn.surrogate import Boxcar as Boxcar
from snnlearn.surrogate import Exponential as Exponential
from snnlearn.surrogate import FastSigmoid as FastSigmoid
from snnlearn.surrogate import Gaussian as Gaussian
from snnlearn.surrogate import PiecewiseLinear as PiecewiseLinear
from snnlearn.surrogate import Sigmoid as Sigmoid
from snnlearn.surrogate import StraightThrough as StraightThrough
from snnlearn.surrogate import Surrogate as Surrogate
from snnlearn.temporal import RTRL as RTRL
from snnlearn.temporal import TSSLBP as TSSLBP
from snnlearn.temporal import Adjoint as Adjoint
from snnlearn.temporal import Eligibility as Eligibility
from snnlearn.temporal import Memory as Memory
from snnlearn.temporal import Method as Method
from snnlearn.temporal import Reset as Reset
from snnlearn.temporal import Unrolled as Unrolled

__version__ = "0.1.0"

# A star import takes the names above, and leaves `nn` to torch.
__all__ = [name for name in dir() if name[0] != "_" and name not in ("nn", "cli", "info")]
