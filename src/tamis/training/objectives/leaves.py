"""Leaf: objectives over vectors of one layer and one width, by the name that a recipe gives.

Source: tamis design. The type is the registry.
"""

from typing import Annotated

from pydantic import Field

from tamis.training.objectives.aldr import ALDR
from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.objectives.list_distil import ListDistil
from tamis.training.objectives.margin_mse import MarginMSE
from tamis.training.objectives.mixup import Mixup
from tamis.training.objectives.multi_positive import MultiPositive
from tamis.training.objectives.orthogonal_projection import OrthogonalProjection
from tamis.training.objectives.pairwise_logistic import PairwiseLogistic
from tamis.training.objectives.pg_rank import PGRank
from tamis.training.objectives.soft_targets import SoftTargets
from tamis.training.objectives.soft_top_k import SoftTopK

Leaf = Annotated[
    ALDR
    | InfoNCE
    | ListDistil
    | MarginMSE
    | Mixup
    | MultiPositive
    | OrthogonalProjection
    | PairwiseLogistic
    | PGRank
    | SoftTargets
    | SoftTopK,
    Field(discriminator="method"),
]
