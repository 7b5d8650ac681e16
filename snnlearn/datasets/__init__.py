"""Data that is simply there, in splits that never change, and loaders of the files of others."""

from snnlearn.datasets.base import Dataset as Dataset
from snnlearn.datasets.base import Split as Split
from snnlearn.datasets.digits import digits as digits
from snnlearn.datasets.recordings import Recordings as Recordings
