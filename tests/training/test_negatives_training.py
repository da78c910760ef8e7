"""What negatives and batches are for, on a made world: documents of one kind that only training can tell apart.

A document is a kind and a colour; a query names the kind by the document's word and the colour by another word, which
no document has. At random two documents of a batch differ in kind, and the kind alone tells them apart: only negatives
of the same kind teach what the colour words mean.
"""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tamis.data import Corpus, Qrels, Queries, Run
from tamis.models import StaticEncoder
from tamis.ops.hashing import text_keys
from tamis.ops.topk import top_k
from tamis.training.negatives import STAR, PositiveAware, TopK
from tamis.training.teacher_cache import TeacherCache

pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

from tamis.training.batching.ngame import NGAME
from tamis.training.batching.tas import TASBalanced
from tamis.training.finetune.contrastive import Contrastive
from tamis.training.finetune.pairs import TrainingPairs
from tamis.training.loop import Optimize
from tamis.training.schedule import Schedule

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
KINDS, COLOURS = 96, 12
WORDS = ["[UNK]", *(f"k{i}" for i in range(KINDS)), *(f"{c}{j}" for c in "dq" for j in range(COLOURS))]
ITEMS = [(i, j) for i in range(KINDS) for j in range(COLOURS)]
CORPUS = Corpus.from_records([{"doc_id": f"{i}-{j}", "text": f"k{i} k{i} d{j}"} for i, j in ITEMS])
SPLIT = text_keys([f"{i}-{j}" for i, j in ITEMS]) % 4


def asked(split):
    chosen = [item for item, part in zip(ITEMS, SPLIT, strict=True) if (part == 0) == (split == "test")]
    queries = Queries.from_texts({f"q{i}-{j}": f"k{i} k{i} q{j}" for i, j in chosen})
    return queries, Qrels.from_dict({f"q{i}-{j}": {f"{i}-{j}": 1} for i, j in chosen})


def encoder():
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return StaticEncoder(np.random.default_rng(0).normal(size=(len(WORDS), 32)).astype(np.float32), tokenizer)


def search(model, queries, k=40):
    ids = CORPUS.doc_ids
    documents = model.encode_documents(CORPUS.table(["text"])["text"].to_pylist())
    rows, scores = top_k(model.encode_queries(queries.texts), documents, k)
    return Run.from_blocks(queries.ids, ids, rows, scores)


def share_right(model):
    """Share of the test queries whose first document is the answer."""
    queries, qrels = asked("test")
    first = search(model, queries, 1).to_dict()
    return float(np.mean([set(found) == qrels.relevant(q) for q, found in first.items()]))


def trained(negatives=None, batches=None, epochs=2):
    queries, qrels = asked("train")
    method = Contrastive(
        epochs=epochs,
        batch_queries=16,
        num_negatives=0 if negatives is None else 2,
        optimize=Optimize(schedule=Schedule(peak=0.005)),
    )
    done = method.finetune(encoder(), CORPUS, queries, qrels, seed=0, negatives=negatives, batches=batches)
    right = share_right(done.encoder)
    held = getattr(done.encoder, "_held_folder", None)
    if held is not None:
        held.cleanup()  # not left to the garbage collector, which warns
    return right


@pytest.fixture(scope="module")
def plain():
    """In-batch negatives of random batches."""
    return trained()


def test_mined_negatives_teach_what_random_documents_do_not(plain):
    queries, qrels = asked("train")
    mined = TopK(num_negatives=7).mine(search(encoder(), queries), qrels, seed=0)
    of_kind = [q[1:].split("-")[0] == d.split("-")[0] for q, found in mined.to_dict().items() for d in found]
    assert np.mean(of_kind) > 0.9  # the search finds the documents of the query's kind
    rng = np.random.default_rng(0)
    by_lot = {q: {f"{i}-{j}": 0.0 for i, j in rng.permutation(ITEMS)[:9]} for q in queries.ids}
    lots = TopK(num_negatives=7).mine(Run.from_dict(by_lot), qrels, seed=0)
    by_mining, control = trained(negatives=mined), trained(negatives=lots)
    assert by_mining > control + 0.1
    assert by_mining > plain + 0.1


def test_clustered_batches_teach_what_random_batches_do_not(plain):
    queries, _ = asked("train")
    keys, vectors = text_keys(queries.texts), encoder().encode_queries(queries.texts)
    sampler = NGAME(size=16, start_epoch=0, cluster_sizes=(4,))
    noise = np.random.default_rng(1).normal(size=vectors.shape)
    clustered = trained(batches=sampler.sampler(lambda _: vectors, keys).batches)
    control = trained(batches=sampler.sampler(lambda _: noise, keys).batches)
    topics = TASBalanced(size=16, num_clusters=KINDS)
    labels = topics.topics(vectors, keys, seed=0)
    topical = trained(batches=lambda num, seed, epoch: topics.queries(labels, seed=seed, epoch=epoch))
    assert clustered > control + 0.1
    assert clustered > plain + 0.1
    assert topical > plain + 0.1


def test_training_takes_what_miners_and_the_cache_give(tmp_path):
    """The room's runs fit the pairs of training: no answer among the negatives, hardest first, teacher scores beside."""
    queries, qrels = asked("train")
    run = search(encoder(), queries)
    run = run.answer(queries.ids[:20])

    class Teacher:
        fingerprint = "words in common"

        def __call__(self, questions, documents):
            return [len(set(q.split()) & set(d.split())) for q, d in zip(questions, documents, strict=True)]

    scored = TeacherCache(tmp_path / "cache").score(run, CORPUS, queries, Teacher())
    for miner in (TopK(), STAR(), PositiveAware(margin_frac=0.0)):
        mined = miner.mine(run, qrels, seed=0)
        some = queries.select(np.arange(20))
        pairs = TrainingPairs.of(CORPUS, some, qrels.of(some), negatives=mined, teacher=scored)
        assert len(pairs) == 20
        assert pairs.negatives.sizes.tolist() == np.diff(mined.offsets).tolist()
        text = {r["doc_id"]: r["text"] for r in CORPUS.table().to_pylist()}
        for row, query_id in enumerate(some.ids):
            found = [pairs.documents[d] for d in pairs.negatives.of_row(row)]
            assert found == [text[d] for d, _ in mined.ranked(query_id)]
        assert len(pairs.teacher_scores) == len(scored)
