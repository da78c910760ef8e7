"""Contrastive fine-tuning: steps by hand, answers are no negatives, learning, and going on to the same bits."""

import numpy as np
import pytest
import torch
from training_models import static, toy, transformer

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.errors import DataError, TrainingError, UsageError
from tamis.training.batching.random import RandomOrder
from tamis.training.finetune.contrastive import Contrastive, ContrastiveTask
from tamis.training.finetune.pairs import TrainingPairs
from tamis.training.loop import Optimize
from tamis.training.machine import Machine
from tamis.training.model import Model
from tamis.training.objectives.info_nce import InfoNCE
from tamis.training.schedule import Schedule
from tamis.training.step import Limits

CPU = Machine("cpu", "float32")
FAST = Optimize(schedule=Schedule(peak=0.02, warmup_frac=0.1))


def settings(**changes):
    return Contrastive(**{"batch_queries": 6, "epochs": 2, "optimize": FAST, "checkpoint_steps": 3, **changes})


def task_of(docs, queries, qrels, *, encoder=None, seed=1, objective=None, **changes):
    runs = {name: changes.pop(name) for name in ("negatives", "teacher") if name in changes}
    made = settings(**changes)
    pairs = TrainingPairs.of(docs, queries, qrels, **runs)
    sampler = RandomOrder(size=made.batch_queries).batches
    return ContrastiveTask(made, Model(encoder or static(), machine=CPU), pairs, objective or InfoNCE(), sampler, seed)


class Seen(InfoNCE):
    """Keeps what a step says about its pairs."""

    def loss(self, query_SBH, document_SDH, batch):
        BATCHES.append(batch)
        return super().loss(query_SBH, document_SDH, batch)


BATCHES = []


def test_a_step_by_hand():
    """Two queries, tables of unit rows: cosines are 1 or 0, so the loss is log(1 + e^-1) at temperature 1."""
    encoder = static()
    encoder.table_VH[:] = np.eye(27, 16, dtype=np.float32)
    docs = Corpus.from_records([{"doc_id": "x", "text": "a"}, {"doc_id": "y", "text": "b"}])
    queries, qrels = Queries.from_texts({"p": "a", "q": "b"}), Qrels.from_dict({"p": {"x": 1}, "q": {"y": 1}})
    task = task_of(docs, queries, qrels, encoder=encoder, objective=InfoNCE(temperature=1.0), epochs=1)
    told = task.backward(0)
    assert task.num_steps == 1
    assert told["loss"] == pytest.approx(np.log1p(np.exp(-1)), rel=1e-6)
    assert (told["queries"], told["documents"], told["epoch"]) == (2, 2, 0)


def test_copies_of_an_answer_are_never_negatives():
    """b and c have one text under two ids; p is answered by one of them, q by both, and r mines all there is."""
    docs = Corpus.from_records({"doc_id": i, "text": t} for i, t in [("b", "x y"), ("c", "x y"), ("d", "z")])
    queries = Queries.from_texts({"p": "a", "q": "e", "r": "f"})
    qrels = Qrels.from_dict({"p": {"b": 1}, "q": {"c": 1, "b": 1}, "r": {"d": 1}})
    everything = Run.from_dict({q: {"b": 3.0, "c": 2.0, "d": 1.0} for q in "pqr"})
    BATCHES.clear()
    task = task_of(docs, queries, qrels, objective=Seen(), negatives=everything, num_negatives=3, epochs=1)
    task.backward(0)
    (batch,) = BATCHES
    assert batch.relevant_BD.shape == (3, 2)  # the copies are one document
    own = batch.relevant_BD.gather(1, batch.target_B[:, None])
    assert own.all() and batch.relevant_BD.sum(1).tolist() == [1, 1, 1]
    for row, negatives in zip(batch.relevant_BD, batch.negative_BN, strict=True):
        used = negatives[negatives >= 0]
        assert len(used) == 1 and not row[used].any()


def test_labels_of_a_step_say_who_belongs_to_whom():
    docs, queries, qrels = toy(20)
    scores = {f"q{i}": {f"d{j}": float(100 * i + j) for j in range(20) if (i + j) % 3} for i in range(20)}
    mined = Run.from_dict(scores)
    BATCHES.clear()
    task = task_of(docs, queries, qrels, objective=Seen(), negatives=mined, teacher=mined, num_negatives=2)
    steps = [task.backward(step) for step in range(task.num_steps)]
    assert len(steps) == 2 * 4 and BATCHES[0].progress == 0 and BATCHES[-1].progress == 1
    assert len({batch.seed for batch in BATCHES}) == len(BATCHES)
    drawn = set()
    for number, batch in enumerate(BATCHES):
        rows = task._epochs[number // 4][number % 4]
        for place, row in enumerate(rows.tolist()):
            target, negatives = int(batch.target_B[place]), batch.negative_BN[place]
            assert batch.relevant_BD[place, target] and not batch.relevant_BD[place, negatives].any()
            assert len(set(negatives.tolist())) == 2 and int(negatives.min()) >= 0
            teacher = batch.teacher_BD[place]
            assert torch.isfinite(teacher[negatives]).all()
            number_of_query = int(task._pairs.teacher_scores[task._pairs.teacher.offsets[row]]) // 100
            assert all(number_of_query * 100 <= s < number_of_query * 100 + 20 for s in teacher[negatives].tolist())
            drawn.add((row, tuple(sorted(teacher[negatives].tolist()))))
    assert len(drawn) > 25  # other negatives in the second epoch


def test_draws_depend_on_content_alone():
    """The same pairs in another order, beside documents that nobody needs: the same losses."""
    docs, queries, qrels = toy(12)
    order = np.random.default_rng(0).permutation(12)
    table = docs.table()
    turned = Corpus.from_table(table.take(order))
    both = []
    for corpus in (docs, turned):
        task = task_of(corpus, queries, qrels, epochs=1)
        both.append([task.backward(step)["loss"] for step in range(task.num_steps)])
    assert both[0] == both[1]


def test_it_learns_what_belongs_together(tmp_path):
    """A random table comes to rank the right document first more often; the loss falls."""
    docs, queries, qrels = toy(40)
    encoder = static()

    def right(encoder):
        scores = encoder.encode_queries(queries.texts) @ encoder.encode_documents(docs.table()["text"].to_pylist()).T
        return float((scores.argmax(axis=1) == np.arange(40)).mean())

    made = settings(epochs=10, batch_queries=20, optimize=Optimize(schedule=Schedule(peak=0.1)))
    run = made.finetune(encoder, docs, queries, qrels, seed=0, machine=CPU, folder=tmp_path)
    losses = [row["loss"] for row in run.metrics]
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])
    assert right(run.encoder) > right(encoder)
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == len(losses) == 20
    assert run.num_unanswered == 0 and run.resumed_at == 0


@pytest.mark.parametrize("limits", [Limits(64, 0), Limits(200, 100_000)])
def test_steps_in_parts_are_steps_as_a_whole(tmp_path, limits):
    docs, queries, qrels = toy(8)
    encoder = transformer(tmp_path / "bert", dropout=0)
    found = []
    for limit in (limits, Limits(10_000, 1 << 40)):
        made = settings(batch_queries=8, epochs=1)
        pairs, batches = TrainingPairs.of(docs, queries, qrels), RandomOrder(size=8).batches
        task = ContrastiveTask(made, Model(encoder, machine=CPU), pairs, InfoNCE(), batches, 1, limits=limit)
        loss = task.backward(0)["loss"]
        found.append((loss, {n: p.grad for n, p in task.module.named_parameters() if p.grad is not None}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    largest = max(float(slope.abs().max()) for slope in found[1][1].values())
    for name, slope in found[0][1].items():
        torch.testing.assert_close(slope, found[1][1][name], rtol=1e-5, atol=1e-5 * largest)


class Struck(Exception):
    pass


def backwards(num, seed, epoch):
    """A second sampler: in turn, from the end in odd epochs."""
    order = np.arange(num)[:: -1 if epoch % 2 else 1]
    return [order[start : start + 5] for start in range(0, num, 5)]


@pytest.mark.parametrize("sampler", [None, backwards], ids=["random", "backwards"])
@pytest.mark.parametrize("struck", [0, 2, 5, 7, 11])
def test_struck_in_any_epoch_it_goes_on_to_the_same_bits(tmp_path, sampler, struck):
    """Dropout on, three epochs of four or five steps, checkpoints each second step."""
    docs, queries, qrels = toy(22)
    encoder = transformer(tmp_path / "bert", dropout=0.2)
    made = settings(epochs=3, checkpoint_steps=2)
    give = (encoder, docs, queries, qrels)
    whole = made.finetune(*give, seed=4, machine=CPU, batches=sampler)

    def strike(row):
        if row["step"] == struck:
            raise Struck

    with pytest.raises(Struck):
        made.finetune(*give, seed=4, machine=CPU, batches=sampler, folder=tmp_path / "run", report=strike)
    again = made.finetune(*give, seed=4, machine=CPU, batches=sampler, folder=tmp_path / "run")
    assert again.resumed_at == struck // 2 * 2
    for one, other in zip(whole.metrics, again.metrics, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    assert {row["epoch"] for row in whole.metrics} == {0, 1, 2}
    for one, other in zip(whole.encoder.model.parameters(), again.encoder.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.encoder.fingerprint == again.encoder.fingerprint


def test_a_run_that_differs_begins_anew(tmp_path):
    docs, queries, qrels = toy(12)
    made, encoder = settings(checkpoint_steps=1), static()
    run = {"seed": 1, "machine": CPU, "folder": tmp_path}
    steps = len(made.finetune(encoder, docs, queries, qrels, **run).metrics)
    assert made.finetune(encoder, docs, queries, qrels, **run).resumed_at == steps
    other_docs = toy(12, seed=9)[0]
    for changed in (
        settings(checkpoint_steps=1, num_negatives=1).finetune(encoder, docs, queries, qrels, **run),
        made.finetune(encoder, docs, queries, qrels, **{**run, "seed": 2}),
        made.finetune(encoder, docs, queries, qrels, objective=InfoNCE(temperature=0.1), **run),
        made.finetune(encoder, docs, queries, qrels, batches=backwards, **run),
        made.finetune(encoder, other_docs, queries, qrels, **run),
        made.finetune(encoder, docs, queries, qrels, negatives=Run.from_dict({"q1": {"d5": 1.0}}), **run),
    ):
        assert changed.resumed_at == 0
    assert made.finetune(encoder, docs, queries, qrels, **run).resumed_at == steps


def test_pairs_that_cannot_be_learnt_from(tmp_path):
    docs, queries, qrels = toy(6)
    run = {"seed": 0, "machine": CPU}
    made, encoder = settings(), static()
    with pytest.raises(DataError, match="none of 6 queries"):
        made.finetune(encoder, docs, queries, Qrels.from_dict({}), **run)
    with pytest.raises(DataError, match="Give at least two"):
        made.finetune(encoder, docs, queries, Qrels.from_dict({"q0": {"d0": 1}}), **run)
    with pytest.raises(DataError, match="'gone'"):
        made.finetune(encoder, docs, queries, Qrels.from_dict({"q0": {"gone": 1}, "q1": {"d1": 1}}), **run)
    blank = Queries.from_texts({**dict(zip(queries.ids, queries.texts, strict=True)), "q0": " "})
    assert made.finetune(encoder, docs, blank, qrels, **run).num_unanswered == 1


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (lambda *_: [], "0 batches"),
        (lambda *_: [np.arange(3), np.zeros(0, np.int64)], "one of them empty"),
        (lambda *_: [np.array([0, 6])], "row 6 of 6"),
        (lambda *_: [np.array([-1, 2])], "row -1 of 6"),
    ],
)
def test_batches_that_no_step_can_be_made_of(batches, message):
    with pytest.raises(UsageError, match=message):
        settings().finetune(static(), *toy(6), seed=0, machine=CPU, batches=batches)


def test_a_loss_that_is_no_number_names_its_step():
    class Broken(InfoNCE):
        def value(self, query_BH, document_DH, batch):
            return super().value(query_BH, document_DH, batch) * (float("nan") if batch.progress > 0.5 else 1)

    with pytest.raises(TrainingError, match="step 1: the loss is not finite"):
        settings(epochs=1).finetune(static(), *toy(12), seed=0, machine=CPU, objective=Broken())
