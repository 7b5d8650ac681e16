"""How credit travels through layers (tutorial Secs. III-A and V, Box 2, Fig. 5). A file for each rule."""

from snnlearn.spatial.alignment import FeedbackAlignment as FeedbackAlignment
from snnlearn.spatial.base import Spatial as Spatial
from snnlearn.spatial.base import Transpose as Transpose
from snnlearn.spatial.base import connect as connect
from snnlearn.spatial.base import recurrence as recurrence
from snnlearn.spatial.base import zero as zero
from snnlearn.spatial.direct import DirectFeedback as DirectFeedback
from snnlearn.spatial.local import LocalErrors as LocalErrors
from snnlearn.spatial.local import keep_active as keep_active
