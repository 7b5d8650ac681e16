"""How credit travels through time. A file for each method; `Reset` says what a gradient sees of the reset."""

from snnlearn.temporal.adjoint import Adjoint as Adjoint
from snnlearn.temporal.base import Backward as Backward
from snnlearn.temporal.base import Reset as Reset
from snnlearn.temporal.base import check_axes as check_axes
from snnlearn.temporal.eligibility import Eligibility as Eligibility
from snnlearn.temporal.eligibility import Memory as Memory
from snnlearn.temporal.forward import Forward as Forward
from snnlearn.temporal.recursion import Credit as Credit
from snnlearn.temporal.recursion import Method as Method
from snnlearn.temporal.rtrl import RTRL as RTRL
from snnlearn.temporal.tsslbp import TSSLBP as TSSLBP
from snnlearn.temporal.unrolled import Unrolled as Unrolled
