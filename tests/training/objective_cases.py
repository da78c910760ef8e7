"""Objectives of every kind, vectors with given cosines, and batches, for their tests."""

import torch

from tamis.training.objectives.aldr import ALDR
from tamis.training.objectives.base import Batch
from tamis.training.objectives.false_negatives import FalseNegatives
from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.objectives.list_distil import ListDistil
from tamis.training.objectives.margin_mse import MarginMSE
from tamis.training.objectives.matryoshka import Matryoshka
from tamis.training.objectives.matryoshka_2d import Matryoshka2D
from tamis.training.objectives.mixup import Mixup
from tamis.training.objectives.multi_positive import MultiPositive
from tamis.training.objectives.orthogonal_projection import OrthogonalProjection
from tamis.training.objectives.pairwise_logistic import PairwiseLogistic
from tamis.training.objectives.pg_rank import PGRank
from tamis.training.objectives.soft_targets import SoftTargets
from tamis.training.objectives.soft_top_k import SoftTopK
from tamis.training.objectives.starbucks import Starbucks
from tamis.training.objectives.weighted import Part, Weighted

NAN = float("nan")
SOFT = 0.5  # a temperature at which finite differences are accurate
KINDS = ("kl", "clipped_kl", "stable", "lambda", "rank_weighted", "pointwise")
LEAVES = [
    InfoNCE(temperature=SOFT),
    InfoNCE(temperature=SOFT, directions="symmetric"),
    InfoNCE(temperature=SOFT, directions="all"),
    InfoNCE(temperature=SOFT, mask=FalseNegatives()),
    InfoNCE(temperature=SOFT, mask=FalseNegatives(judge="student", unit="score")),
    MultiPositive(temperature=SOFT),
    MultiPositive(temperature=SOFT, mask=FalseNegatives()),
    SoftTopK(temperature=SOFT),
    SoftTopK(temperature=SOFT, k=None),
    MarginMSE(),
    MarginMSE(similarity="dot", scale=1.0),
    *(ListDistil(kind=kind, temperature=SOFT) for kind in KINDS),
    SoftTargets(temperature=SOFT),
    PairwiseLogistic(temperature=SOFT),
    PairwiseLogistic(temperature=SOFT, mask=FalseNegatives()),
    OrthogonalProjection(),
    OrthogonalProjection(spares_opposites=True),
    ALDR(temperature=SOFT),
    Mixup(),
    PGRank(temperature=SOFT, num_rankings=5, k=3),
]
SINGLE = [
    *LEAVES,
    Matryoshka(dims=(6, 3), inner=InfoNCE(temperature=SOFT)),
    Weighted(parts=(Part(objective=MultiPositive()), Part(weight=0.1, objective=ListDistil()))),
]
LAYERED = [
    Matryoshka2D(dims=(6, 3), inner=InfoNCE(temperature=SOFT)),
    Starbucks(rungs=((1, 3), (2, 4)), inner=InfoNCE(temperature=SOFT)),
    Weighted(parts=(Part(objective=Starbucks(rungs=((1, 3), (2, 4)))), Part(weight=0.1, objective=MarginMSE()))),
]
OBJECTIVES = [*SINGLE, *LAYERED]


def name(objective):
    """A method and what of it is not by default."""
    return objective.method + objective.model_dump_json(exclude_defaults=True)


def vectors_of(cosine_BD: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 unit vectors of queries and documents whose cosines are those given; columns have norms of at most 1."""
    cosines = torch.tensor(cosine_BD, dtype=torch.float64)
    rest_1D = (1 - (cosines**2).sum(dim=0, keepdim=True)).sqrt()
    assert not rest_1D.isnan().any()
    query = torch.eye(len(cosines), len(cosines) + 1, dtype=torch.float64)
    return query, torch.cat([cosines, rest_1D]).T.contiguous()


def batch_of(
    target: list[int],
    num_docs: int,
    *,
    relevant: list[tuple[int, int]] = (),
    negatives: list[list[int]] | None = None,
    teacher: list[list[float]] | None = None,
    weight: list[float] | None = None,
    seed: int = 0,
) -> Batch:
    """A batch; further relevant pairs are (query, column)."""
    is_relevant = torch.zeros(len(target), num_docs, dtype=torch.bool)
    for pair in [*enumerate(target), *relevant]:
        is_relevant[pair] = True
    return Batch(
        target_B=torch.tensor(target),
        relevant_BD=is_relevant,
        negative_BN=torch.tensor(negatives) if negatives else torch.zeros(len(target), 0, dtype=torch.int64),
        teacher_BD=None if teacher is None else torch.tensor(teacher),
        weight_B=None if weight is None else torch.tensor(weight),
        seed=seed,
    )


def random_case(
    num_queries: int = 7, num_docs: int = 17, width: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, Batch]:
    """Vectors that want a gradient and a batch with second answers, mined negatives, weights and a patchy teacher."""
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(num_queries, width, generator=draw, dtype=dtype).requires_grad_()
    document = torch.randn(num_docs, width, generator=draw, dtype=dtype).requires_grad_()
    target = torch.randint(num_docs, (num_queries,), generator=draw)
    relevant = torch.rand(num_queries, num_docs, generator=draw) < 0.1
    relevant.scatter_(1, target[:, None], True)
    negative = (
        torch.rand(num_queries, num_docs, generator=draw).masked_fill(relevant, -1).argsort(descending=True)[:, :3]
    )
    negative[::3, 1:] = -1
    teacher = torch.randn(num_queries, num_docs, generator=draw, dtype=dtype)
    teacher[torch.rand(num_queries, num_docs, generator=draw) < 0.3] = NAN
    teacher[1] = NAN
    weight = torch.rand(num_queries, generator=draw, dtype=dtype) + 0.5
    return query, document, Batch(target, relevant, negative, teacher, weight / weight.mean(), 0.5, seed)


def stacked(objective, query, document):
    """Vectors of three layers, where the objective wants layers."""
    if not objective.layers(3):
        return query[None], document[None]
    return torch.stack([query.roll(1, 1), query * 0.5, query]), torch.stack([document.sin(), document + 1, document])


def solved(objective, query, document, batch):
    """Value and gradients of an objective."""
    value = objective.loss(*stacked(objective, query, document), batch)
    return value.detach(), *torch.autograd.grad(value, (query, document), materialize_grads=True)
