"""What holds for every miner: no answer is mined, queries stay, nothing depends on row order or on other queries."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tamis.training.negatives as room
from tamis.data import Corpus, Qrels, Run
from tamis.data.settings import Settings
from tamis.training.negatives import STAR, Miner, OwnerFilter, PositiveAware, SameDocument, Sampled, SharedPool, TopK

QUERIES = ["q0", "q1", "q2", "qé"]
DOCS = [f"d{i}#{j}" for i in range(3) for j in range(4)]
VECTORS = np.random.default_rng(0).normal(size=(len(QUERIES), 8))
OWNERS = Qrels.from_dict({"q0": {"d0#0": 1}, "q1": {"d0#0": 1, "d1#2": 1}, "q2": {"d2#3": 1}})


def passages():
    columns = {"section": "", "start": 0, "stop": 1}
    rows = [{"doc_id": d, "text": f"text {d}", "parent_doc_id": d[:2], "ordinal": int(d[-1])} | columns for d in DOCS]
    return Corpus.from_records(rows)


MINERS = {
    "top_k": TopK(num_negatives=2),
    "top_k_skip": TopK(num_negatives=3, skip=2),
    "positive_aware": PositiveAware(num_negatives=2),
    "sampled": Sampled(num_negatives=2, min_rank=1, max_rank=6),
    "sampled_soft": Sampled(num_negatives=2, min_rank=2, max_rank=9, temperature=0.5),
    "star": STAR(max_rank=5),
    "owner_filter": OwnerFilter(num_negatives=3, max_cosine=0.1).over(QUERIES, VECTORS, OWNERS),
    "owner_filter_measured": OwnerFilter(num_negatives=3, max_cosine="p99").over(QUERIES, VECTORS, OWNERS),
    "same_document": SameDocument(num_negatives=2, gap=0).over(passages()),
}
every_miner = pytest.mark.parametrize("miner", MINERS.values(), ids=MINERS)
scores = st.dictionaries(st.sampled_from(DOCS), st.integers(-8, 8).map(lambda n: n / 4), min_size=1)


@st.composite
def problems(draw):
    """A run in which every query has a scored answer, and judgements of grade 0 and 1 inside and outside of it."""
    run = {q: draw(scores) for q in QUERIES}
    grades = {q: draw(st.dictionaries(st.sampled_from(DOCS), st.sampled_from([0, 1]))) for q in QUERIES}
    for query_id, ranked in run.items():
        grades[query_id][draw(st.sampled_from(sorted(ranked)))] = 1
    return run, Qrels.from_dict(grades)


@every_miner
@settings(max_examples=12)
@given(problem=problems(), seed=st.integers(0, 3))
def test_no_answer_is_mined_and_the_queries_stay(miner, problem, seed):
    ranked, qrels = problem
    run = Run.from_dict(ranked)
    mined = miner.mine(run, qrels, seed=seed)
    assert mined.query_ids.to_pylist() == QUERIES
    for query_id, found in mined.to_dict().items():
        assert not set(found) & qrels.relevant(query_id)
        if not isinstance(miner, type(MINERS["same_document"])):
            assert found.items() <= ranked[query_id].items()  # with the scores of the run
    assert run == Run.from_dict(ranked)  # untouched


@every_miner
@settings(max_examples=12)
@given(problem=problems(), seed=st.integers(0, 3), order=st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_other_queries_matter(miner, problem, seed, order):
    ranked, qrels = problem
    mined = miner.mine(Run.from_dict(ranked), qrels, seed=seed).to_dict()
    assert miner.mine(Run.from_dict(ranked), qrels, seed=seed).to_dict() == mined
    shuffled = {q: dict(order.sample(list(found.items()), len(found))) for q, found in ranked.items()}
    shuffled = dict(order.sample(list(shuffled.items()), len(shuffled)))
    judged = Qrels(qrels.table.take(order.sample(range(len(qrels)), len(qrels))))
    assert miner.mine(Run.from_dict(shuffled), judged, seed=seed).to_dict() == mined
    for query_id in QUERIES[-1:]:
        alone = miner.mine(Run.from_dict({query_id: ranked[query_id]}), qrels, seed=seed)
        assert alone.to_dict() == {query_id: mined[query_id]}


@every_miner
@settings(max_examples=12)
@given(problem=problems(), power=st.integers(-3, 3))
def test_the_scale_of_the_scores_does_not_matter(miner, problem, power):
    ranked, qrels = problem
    factor = 2.0**power  # exact, so that a tie stays a tie
    if getattr(miner, "temperature", None) is not None:
        other = miner.model_copy(update={"temperature": miner.temperature * factor})  # has the scores' unit
    else:
        other = miner
    scaled = {q: {d: s * factor for d, s in found.items()} for q, found in ranked.items()}
    mined = miner.mine(Run.from_dict(ranked), qrels, seed=1)
    again = other.mine(Run.from_dict(scaled), qrels, seed=1)
    assert {q: list(f) for q, f in again.to_dict().items()} == {q: list(f) for q, f in mined.to_dict().items()}


@every_miner
@settings(max_examples=12)
@given(problem=problems())
def test_of_one_more_negative_the_others_are_a_part(miner, problem):
    ranked, qrels = problem
    run = Run.from_dict(ranked)
    settings = getattr(miner, "settings", miner)
    name = "max_rank" if isinstance(settings, STAR) else "num_negatives"
    mined = []
    for extra in (0, 1):
        more = settings.model_copy(update={name: getattr(settings, name) + extra})
        with_data = more if settings is miner else type(miner)(**{**vars(miner), "settings": more})
        mined.append(with_data.mine(run, qrels, seed=2).to_dict())
    for query_id in QUERIES:
        assert set(mined[0][query_id]) <= set(mined[1][query_id])
        assert len(mined[1][query_id]) - len(mined[0][query_id]) in (0, 1)


@every_miner
def test_a_run_without_rows_or_queries_gives_none(miner):
    qrels = Qrels.from_dict({"q0": {"d0#0": 0}})
    assert miner.mine(Run.from_dict({}), qrels, seed=0).to_dict() == {}
    assert miner.mine(Run.from_dict({"q0": {}, "q1": {}}), qrels, seed=0).to_dict() == {"q0": {}, "q1": {}}


def test_every_file_of_the_room_is_public_and_says_where_it_comes_from():
    folder = Path(room.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    methods = {"top_k", "positive_aware", "sampled", "star", "owner_filter", "same_document", "shared_pool"}
    assert files == methods | {"base", "candidate_runs", "suspicion"}
    homes = {
        importlib.import_module(getattr(room, name).__module__).__name__.rsplit(".", 1)[1] for name in room.__all__
    }
    assert homes == files
    for path in folder.glob("*.py"):
        assert path.stem == "__init__" or "\nSource: " in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [TopK, PositiveAware, Sampled, STAR, OwnerFilter, SameDocument, SharedPool])
def test_settings_survive_a_round_trip(kind):
    assert issubclass(kind, Settings)
    assert issubclass(kind, Miner) == hasattr(kind, "mine")
    made = kind()
    assert kind.from_json(json.dumps(made.model_dump(mode="json")), "here") == made
