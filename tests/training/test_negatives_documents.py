"""OwnerFilter, SameDocument and SharedPool: by hand, against the slow obvious version, and on planted answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tamis.training.negatives.owner_filter as owner_module
import tamis.training.negatives.same_document as same_module
from tamis.data import Corpus, Qrels, Run
from tamis.errors import DataError
from tamis.training.negatives import OwnerFilter, PositiveAware, SameDocument, SharedPool, TopK, candidates


def at(*cosines):
    """Unit vectors in the plane with the given cosines to (1, 0)."""
    return [[c, (1 - c * c) ** 0.5] for c in cosines]


def test_owner_filter_by_hand():
    """The owner of ``a`` stands at cosine .9 to the query, that of ``b`` at .6; ``c`` has none and passes."""
    owners = Qrels.from_dict({"o1": {"a": 1}, "o2": {"b": 1}, "o3": {"c": 0}})
    miner = OwnerFilter(max_cosine=0.8).over(["q", "o1", "o2", "o3"], at(1.0, 0.9, 0.6, 1.0), owners)
    run = Run.from_dict({"q": {"a": 3.0, "b": 2.0, "c": 1.0}})
    assert miner.closeness(run).tolist() == pytest.approx([0.9, 0.6, -np.inf], abs=1e-6)
    assert [d for d, _ in miner.mine(run, Qrels.from_dict({}), seed=0).ranked("q")] == ["b", "c"]
    assert int(np.isneginf(miner.closeness(run)).sum()) == 1  # documents that nobody owns are counted so


@settings(max_examples=40)
@given(
    owners=st.dictionaries(st.sampled_from(list("pqrs")), st.sets(st.sampled_from(list("abcdef")), min_size=1)),
    ranked=st.dictionaries(
        st.sampled_from(list("pqrs")), st.dictionaries(st.sampled_from(list("abcdef")), st.integers(0, 9)), min_size=1
    ),
    seed=st.integers(0, 99),
    block=st.sampled_from([1, 3, 1 << 20]),
)
def test_closeness_is_the_slow_one(owners, ranked, seed, block):
    vectors = np.random.default_rng(seed).normal(size=(4, 5))
    unit = dict(zip("pqrs", vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))
    grades = Qrels.from_dict({q: dict.fromkeys(docs, 1) for q, docs in owners.items()})
    miner, run = OwnerFilter().over(list("pqrs"), vectors, grades), Run.from_dict(ranked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner_module, "_BLOCK_PAIRS", block)
        found = miner.closeness(run)
    rows = zip(run.to_table()["query_id"].to_pylist(), run.doc_column.to_pylist(), strict=True)
    slow = [max([unit[q] @ unit[o] for o, docs in owners.items() if d in docs], default=-np.inf) for q, d in rows]
    assert found.tolist() == pytest.approx(slow, abs=1e-6)


def test_p99_is_exceeded_by_one_random_pair_in_a_hundred():
    vectors = np.random.default_rng(0).normal(size=(400, 6)) + 1.0  # cosines that lie close together
    ids = [f"q{i}" for i in range(400)]
    miner = OwnerFilter(max_cosine="p99").over(ids, vectors, Qrels.from_dict({}))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(400, 1)]
    assert (cosines > miner.limit(seed=0)).mean() == pytest.approx(0.01, abs=0.003)
    order = np.random.default_rng(1).permutation(400)
    turned = OwnerFilter(max_cosine="p99").over([ids[i] for i in order], vectors[order], Qrels.from_dict({}))
    assert turned.limit(seed=0) == miner.limit(seed=0)
    assert OwnerFilter(max_cosine="p99").over(["q"], [[1.0]], Qrels.from_dict({})).limit(seed=0) == 1.0


def planted(rng, num=150):
    """Queries with a paraphrase each; the paraphrase's document is an answer of both, judged for one of them.

    The encoder under training scores documents badly (noise), while it places queries well.
    """
    query = rng.normal(size=(num, 24))
    paraphrase = query + 0.25 * rng.normal(size=query.shape)
    ids = [f"q{i}" for i in range(num)] + [f"p{i}" for i in range(num)]
    owners = {q: {f"of {q}": 1} for q in ids}
    run = {}
    for i in range(num):
        others = rng.choice([j for j in range(num) if j != i], 8, replace=False)
        documents = [f"of q{i}", f"of p{i}", *(f"of q{j}" for j in others)]
        run[f"q{i}"] = dict(zip(documents, rng.uniform(0.3, 0.9, 10).tolist(), strict=True))
    return ids, np.concatenate([query, paraphrase]), owners, Run.from_dict(run)


def test_planted_paraphrases_are_found_by_their_owners_and_not_by_scores():
    rng = np.random.default_rng(1)
    ids, vectors, owners, run = planted(rng)
    judged = Qrels.from_dict({q: owners[q] for q in ids[:150]})

    def missed(miner):  # planted answers that are mined all the same
        found = miner.mine(run, judged, seed=0).to_dict()
        return sum(f"of p{q[1:]}" in docs for q, docs in found.items()) / 150

    names = rng.permutation(list(owners))
    shuffled = {q: owners[other] for q, other in zip(owners, names, strict=True)}
    by_owner = missed(OwnerFilter(num_negatives=9).over(ids, vectors, Qrels.from_dict(owners)))
    by_wrong_owner = missed(OwnerFilter(num_negatives=9).over(ids, vectors, Qrels.from_dict(shuffled)))
    by_score = missed(PositiveAware(num_negatives=9))
    assert by_owner < 0.02
    assert by_score > 0.3
    assert by_wrong_owner > 0.9


def test_owner_filter_refuses_what_it_cannot_compare():
    owners = Qrels.from_dict({"o": {"a": 1}})
    run = Run.from_dict({"q": {"a": 1.0}})
    with pytest.raises(DataError, match="query o owns document a and has no vector"):
        OwnerFilter().over(["q"], [[1.0]], owners).mine(run, owners, seed=0)
    with pytest.raises(DataError, match="1 of 1 are unknown, first q"):
        OwnerFilter().over(["o"], [[1.0]], owners).mine(run, owners, seed=0)
    with pytest.raises(DataError, match="1 rows are needed, got shape"):
        OwnerFilter().over(["q"], [[1.0], [2.0]], owners)
    with pytest.raises(DataError, match="row 1 holds NaN"):
        OwnerFilter().over(["q", "o"], [[1.0], [np.nan]], owners)


def passages(*sizes, texts=None):
    columns = {"section": "", "start": 0, "stop": 1}
    rows = []
    for i, size in enumerate(sizes):
        for j in range(size):
            doc_id = f"d{i}#{j}"
            text = (texts or {}).get(doc_id, f"text {doc_id}")
            rows.append({"doc_id": doc_id, "text": text, "parent_doc_id": f"d{i}", "ordinal": j} | columns)
    return Corpus.from_records(rows)


def siblings(corpus, relevant, **given):
    run = Run.from_dict({q: {} for q in relevant})
    qrels = Qrels.from_dict({q: dict.fromkeys(docs, 1) for q, docs in relevant.items()})
    return SameDocument(**given).over(corpus).mine(run, qrels, seed=0).to_dict()


def test_same_document_by_hand():
    corpus = passages(5, 3)
    assert siblings(corpus, {"q": ["d0#2"]}, gap=1) == {"q": {"d0#0": -2.0, "d0#4": -2.0}}
    assert list(siblings(corpus, {"q": ["d0#2"]}, gap=0)["q"]) == ["d0#1", "d0#3", "d0#0", "d0#4"]
    assert list(siblings(corpus, {"q": ["d0#0"]}, gap=0, num_negatives=2)["q"]) == ["d0#1", "d0#2"]
    # two answers: what stands beside either is left out; the nearer one counts
    assert siblings(corpus, {"q": ["d0#0", "d0#1"]}, gap=1) == {"q": {"d0#3": -2.0, "d0#4": -3.0}}
    assert siblings(corpus, {"q": ["d0#0", "d1#2"]}, gap=1) == {
        "q": {"d0#2": -2.0, "d1#0": -2.0, "d0#3": -3.0, "d0#4": -4.0}
    }


def test_a_copy_of_an_answer_is_no_negative():
    """A summary passage that repeats the answer's text stands far from it."""
    texts = {"d0#0": "the answer", "d0#4": "the answer"}
    rows = [
        r | {"group_id": "d0#0" if r["doc_id"] in texts else r["doc_id"]} for r in records(passages(5, texts=texts))
    ]
    assert siblings(Corpus.from_records(rows), {"q": ["d0#0"]}) == {"q": {"d0#2": -2.0, "d0#3": -3.0}}


def records(corpus):
    return corpus.table().to_pylist()


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    data=st.data(),
    gap=st.integers(0, 2),
    num=st.integers(1, 5),
    block=st.sampled_from([1, 5, 1 << 22]),
)
def test_same_document_is_the_slow_one(sizes, data, gap, num, block):
    everything = [(i, j) for i, size in enumerate(sizes) for j in range(size)]
    answers = {q: data.draw(st.sets(st.sampled_from(everything))) for q in ("q1", "q2", "q3")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(same_module, "_BLOCK_PAIRS", block)
        found = siblings(
            passages(*sizes),
            {q: [f"d{i}#{j}" for i, j in docs] for q, docs in answers.items()},
            gap=gap,
            num_negatives=num,
        )
    for query_id, right in answers.items():
        slow = {}
        for i, j in everything:
            distance = min((abs(j - other) for parent, other in right if parent == i), default=-1)
            if distance > gap:
                slow[f"d{i}#{j}"] = -float(distance)
        in_order = sorted(slow, key=lambda d: (-slow[d], d))[:num]
        assert found[query_id] == {d: slow[d] for d in in_order}


def test_half_and_half_with_retrieved_ones():
    corpus = passages(8)
    near = SameDocument(gap=1).over(corpus)
    run = Run.from_dict({"q": {f"other{i}": -float(i) for i in range(8)}})
    qrels = Qrels.from_dict({"q": {"d0#0": 1}})
    both = TopK(num_negatives=6).mine(candidates(run, near.mine(run, qrels, seed=0)), qrels, seed=0)
    assert sorted(d for d, _ in both.ranked("q")) == ["d0#2", "d0#3", "d0#4", "other0", "other1", "other2"]


def test_same_document_refuses_whole_documents_and_strange_answers():
    whole = Corpus.from_records([{"doc_id": "a", "text": "x"}])
    with pytest.raises(DataError, match="holds whole documents"):
        SameDocument().over(whole)
    with pytest.raises(DataError, match="1 of 1 are unknown, first d9"):
        siblings(passages(3), {"q": ["d9"]})


@given(
    num_docs=st.integers(0, 12),
    num=st.integers(0, 40),
    taken=st.lists(st.integers(-1, 39), max_size=10),
    step=st.integers(0, 5),
)
def test_a_pool_is_distinct_ascending_and_disjoint_from_the_batch(num_docs, num, taken, step):
    held = {t for t in taken if 0 <= t < num}
    rows = SharedPool(num_docs=num_docs).draw(num, np.array(taken, dtype=np.int64), seed=1, step=step)
    assert len(rows) == min(num_docs, num - len(held))
    assert (np.diff(rows) > 0).all()
    assert not set(rows.tolist()) & held
    assert set(rows.tolist()) <= set(range(num))
    again = SharedPool(num_docs=num_docs).draw(num, np.array(taken[::-1], dtype=np.int64), seed=1, step=step)
    assert rows.tolist() == again.tolist()


@pytest.mark.parametrize("num", [60, 5000])  # by order and by draws
def test_every_document_is_as_likely_and_every_step_has_its_own_pool(num):
    pool, none = SharedPool(num_docs=16), np.zeros(0, np.int64)
    hits = np.zeros(num)
    for step in range(1500):
        hits[pool.draw(num, none, seed=5, step=step)] += 1
    expected = 1500 * 16 / num
    assert hits.sum() == 1500 * 16
    assert hits.var() / (expected * (1 - 16 / num)) == pytest.approx(1.0, abs=0.35)
    first, second = (set(pool.draw(num, none, seed=5, step=step).tolist()) for step in (0, 1))
    assert first != second
    assert first != set(pool.draw(num, none, seed=6, step=0).tolist())


def test_a_pool_adds_columns_to_info_nce():
    """The card's numbers: scores .8 and .6, a pool of .2 and .4, temperature .1."""
    torch = pytest.importorskip("torch")
    from tamis.training.objectives.base import Batch
    from tamis.training.objectives.info_nce import InfoNCE

    def loss(*cosines, relevant=()):
        documents = torch.tensor(at(*cosines))
        known = torch.zeros(1, len(cosines), dtype=torch.bool)
        known[0, [0, *relevant]] = True
        batch = Batch(torch.tensor([0]), known, torch.zeros(1, 0, dtype=torch.int64))
        return float(InfoNCE(temperature=0.1).value(torch.tensor([[1.0, 0.0]]), documents, batch))

    assert loss(0.8, 0.6, 0.2, 0.4) == pytest.approx(0.14508, abs=1e-5)
    assert loss(0.8, 0.6, 0.2, 0.4, relevant=[3]) == pytest.approx(loss(0.8, 0.6, 0.2), abs=1e-6)
    assert len(SharedPool(num_docs=0).draw(10, np.array([1, 2]), seed=0, step=0)) == 0  # nothing is added
