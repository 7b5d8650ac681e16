"""Data that is simply there, in splits that never change, and loaders of the files of others."""

from snnlearn.datasets.base import Dataset as Dataset
from snnlearn.datasets.base import Split as Split
from snnlearn.datasets.batches import Samples as Samples
from snnlearn.datasets.batches import collate as collate
from snnlearn.datasets.batches import loader as loader
from snnlearn.datasets.catalogue import load as load
from snnlearn.datasets.digits import digits as digits
from snnlearn.datasets.generated import Trains as Trains
from snnlearn.datasets.generated import cue_accumulation as cue_accumulation
from snnlearn.datasets.generated import delayed_xor as delayed_xor
from snnlearn.datasets.generated import poisson_targets as poisson_targets
from snnlearn.datasets.generated import randman as randman
from snnlearn.datasets.generated import temporal_xor as temporal_xor
from snnlearn.datasets.generated import yin_yang as yin_yang
from snnlearn.datasets.heidelberg import read_heidelberg as read_heidelberg
from snnlearn.datasets.recordings import Recordings as Recordings
from snnlearn.datasets.spoken import spoken as spoken
