"""Training: the loop, in one process or several, and what it writes. An interrupted run goes on to the same numbers."""

from snnlearn.training.checkpoints import CHECKPOINT as CHECKPOINT
from snnlearn.training.checkpoints import MAGIC as MAGIC
from snnlearn.training.checkpoints import METRICS as METRICS
from snnlearn.training.checkpoints import RESULT as RESULT
from snnlearn.training.checkpoints import WEIGHTS as WEIGHTS
from snnlearn.training.checkpoints import _replacing as _replacing
from snnlearn.training.checkpoints import read_checkpoint as read_checkpoint
from snnlearn.training.checkpoints import write as write
from snnlearn.training.checkpoints import write_checkpoint as write_checkpoint
from snnlearn.training.distributed import Group as Group
from snnlearn.training.distributed import launched as launched
from snnlearn.training.evaluation import evaluate as evaluate
from snnlearn.training.precision import PRECISIONS as PRECISIONS
from snnlearn.training.precision import products as products
from snnlearn.training.run import Result as Result
from snnlearn.training.run import _Run as _Run
from snnlearn.training.run import peak_memory_mb as peak_memory_mb
from snnlearn.training.run import train as train
from snnlearn.training.weights import load_weights as load_weights
from snnlearn.training.weights import save_weights as save_weights
