"""StaticSVD: the card's hand-worked numbers, peers (sklearn, torch), determinism, tiny and odd corpora."""

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from tamis.data import Corpus, artefact
from tamis.errors import DataError, RecipeError
from tamis.models import StaticEncoder, load_encoder
from tamis.training.pretrain import refine, spectral, vocabulary
from tamis.training.pretrain.static_svd import StaticSVD, random_signs
from tamis.training.pretrain.words import bags, read_words

TOPICS = [
    "wing lift drag airfoil flow boundary layer turbulence pressure nozzle",
    "cell protein gene enzyme membrane receptor mutation tissue antibody plasma",
    "market price interest bond inflation trade currency bank credit equity",
    "sonata violin tempo chord melody rhythm orchestra tenor harmony score",
]


def make_corpus(num_docs=120, seed=0, words=40):
    rng = np.random.default_rng(seed)
    records = []
    for i in range(num_docs):
        topic = TOPICS[i % 4].split()
        text = [*rng.choice(topic, words), *rng.choice(["the", "of", "and", "methods", "results"], words // 4)]
        text.append(f"ident{i}x")
        records.append({"doc_id": f"d{i}", "title": f"{topic[i % 10]} study", "text": " ".join(rng.permutation(text))})
    return Corpus.from_records(records)


def make_wide_corpus():
    """Many words, so that matrices are large enough for BLAS to use threads."""
    rng = np.random.default_rng(1)
    rows = rng.zipf(1.3, (1200, 40)) % 4000
    return Corpus.from_records(
        [{"doc_id": str(i), "text": " ".join(f"w{j}" for j in row)} for i, row in enumerate(rows)]
    )


def texts(corpus):
    return [f"{t}\n{x}" for t, x in zip(*(corpus.table()[c].to_pylist() for c in ("title", "text")), strict=True)]


@pytest.fixture(scope="module")
def corpus():
    return make_corpus()


@pytest.fixture(scope="module")
def pretrained(corpus):
    return StaticSVD(dim=32, num_pieces=200).pretrain(None, corpus, seed=7)


# --- weights: the card's numbers -------------------------------------------------------------------------------


def test_log_entropy_by_hand():
    counts = sparse.csr_array(np.array([[3, 2, 4], [1, 2, 0]], dtype=np.float32))
    assert np.allclose(spectral.log_entropy(counts, min_df=1), [0.18872, 0, 1], atol=1e-5)
    assert np.allclose(spectral.log_entropy(counts, min_df=2), [0.18872, 0, 0], atol=1e-5)
    alone = sparse.csr_array(np.array([[3, 1]], dtype=np.float32))
    assert np.array_equal(spectral.log_entropy(alone, min_df=1), [1, 1])


def test_bm25_tf_by_hand():
    average = spectral.bm25_tf(sparse.csr_array(np.array([[3.0, 1.0], [3.0, 1.0]])))
    assert average[0, 0] == pytest.approx(1.57143, abs=1e-5)
    # Lengths 12, 3, 3: mean 6, the first twice the average.
    double = spectral.bm25_tf(sparse.csr_array(np.array([[3.0, 9.0], [3.0, 0.0], [3.0, 0.0]])))
    assert double[0, 0] == pytest.approx(1.29412, abs=1e-5)


def test_svd_by_hand():
    singular, V_GH = spectral.right_singular_vectors(
        sparse.csr_array(np.array([[1, 1, 0], [0, 1, 1]], dtype=np.float32)), 2, seed=0
    )
    assert np.allclose(singular, [1.73205, 1], atol=1e-5)
    assert np.allclose(V_GH[:, 0], [0.40825, 0.81650, 0.40825], atol=1e-5)


def test_svd_agrees_with_sklearn():
    from sklearn.decomposition import TruncatedSVD

    Y_DG = sparse.random_array((300, 200), density=0.05, rng=np.random.default_rng(5), format="csr", dtype=np.float32)
    Y_DG = sparse.csr_array(Y_DG @ sparse.diags_array(np.linspace(3, 0.1, 200) ** 2))
    singular, V_GH = spectral.right_singular_vectors(Y_DG, 20, seed=0)
    peer = TruncatedSVD(20, n_iter=20, random_state=0).fit(Y_DG)
    assert np.allclose(singular, peer.singular_values_, rtol=2e-3)
    assert np.allclose(V_GH.T @ V_GH, np.eye(20), atol=1e-4)
    ours, theirs = Y_DG @ V_GH, Y_DG @ peer.components_.T
    ours, theirs = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ours[:, :10], theirs[:, :10]))
    assert np.abs(ours @ ours.T - theirs @ theirs.T).max() < 0.02
    # The largest entry of each vector is positive; blocks of documents change nothing but rounding.
    assert (V_GH[np.abs(V_GH).argmax(axis=0), np.arange(20)] > 0).all()


def test_svd_in_blocks_is_the_same(monkeypatch):
    Y_DG = sparse.random_array((90, 40), density=0.2, rng=np.random.default_rng(1), format="csr", dtype=np.float32)
    Y_DG = sparse.csr_array(Y_DG)
    whole = spectral.right_singular_vectors(Y_DG, 5, seed=3)[0]
    monkeypatch.setattr(spectral, "_BLOCK_DOCS", 7)
    assert np.allclose(spectral.right_singular_vectors(Y_DG, 5, seed=3)[0], whole, rtol=1e-5)


def test_svd_of_nothing_and_of_low_rank():
    assert spectral.right_singular_vectors(sparse.csr_array((3, 4), dtype=np.float32), 2, seed=0)[1].shape == (4, 0)
    singular, V_GH = spectral.right_singular_vectors(sparse.csr_array(np.ones((6, 5), np.float32)), 4, seed=0)
    assert (len(singular), V_GH.shape) == (1, (5, 1))


# --- refinement ------------------------------------------------------------------------------------------------


def random_bags(rng, rows, width):
    return sparse.csr_array(rng.integers(0, 3, (rows, width)).astype(np.float64))


@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(1, 6))
@settings(max_examples=25)
def test_gradient_is_torchs(seed, batch, dim):
    import torch

    rng = np.random.default_rng(seed)
    table_GH = rng.standard_normal((9, dim))
    left, right = random_bags(rng, batch, 9), random_bags(rng, batch, 9)
    left += sparse.csr_array(np.eye(batch, 9))  # no empty text: torch divides by its norm
    right += sparse.csr_array(np.eye(batch, 9))
    loss, gradient_GH = refine.info_nce(table_GH, left, right)
    table = torch.tensor(table_GH, requires_grad=True)
    a, b = (torch.nn.functional.normalize(torch.tensor(x.toarray()) @ table) for x in (left, right))
    logits, own = a @ b.T / 0.05, torch.arange(batch)
    entropy = torch.nn.functional.cross_entropy
    peer = (entropy(logits, own) + entropy(logits.T, own)) / 2
    peer.backward()
    assert loss == pytest.approx(peer.item(), rel=1e-6, abs=1e-9)
    assert np.allclose(gradient_GH, table.grad.numpy(), rtol=1e-5, atol=1e-7 + 1e-6 * np.abs(gradient_GH).max())


def test_empty_text_has_no_gradient():
    left = sparse.csr_array(np.array([[1.0, 0], [0, 0]]))
    loss, gradient_GH = refine.info_nce(np.eye(2), left, left)
    assert np.isfinite(loss)
    assert np.isfinite(gradient_GH).all()


def test_adam_is_torchs():
    import torch

    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal((2100, 3)), rng.standard_normal((5, 2100, 3))
    ours = start.copy()
    adam = refine.Adam(ours)
    peer = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.Adam([peer], lr=0.01)
    for gradient in gradients:
        adam.step(gradient, 0.01)
        peer.grad = torch.tensor(gradient)
        optimizer.step()
    assert np.allclose(ours, peer.detach().numpy(), atol=1e-6)


def make_texts(num_docs=60):
    rng = np.random.default_rng(2)
    offsets = np.arange(num_docs + 1) * 12
    return refine.Texts(
        rng.integers(0, 30, num_docs * 12).astype(np.int32),
        offsets,
        sparse.eye_array(30, format="csr", dtype=np.float32),
    )


def test_crops_are_spans_of_their_text():
    texts, rng = make_texts(), np.random.default_rng(0)
    rows = np.repeat(np.arange(60), 20)
    crops = texts.crops(rows, rng).toarray()
    sizes = crops.sum(axis=1)
    assert set(sizes) == {2, 3, 4, 5, 6}  # 10 to 50 % of 12 words, rounded up
    for row, crop in zip(rows[:50], crops, strict=False):
        words = texts.flat[12 * row : 12 * row + 12]
        n = int(crop.sum())
        assert any((np.bincount(words[i : i + n], minlength=30) == crop).all() for i in range(13 - n))
    assert np.array_equal(texts.whole(np.array([3])).toarray()[0], np.bincount(texts.flat[36:48], minlength=30))


def test_guard_keeps_what_is_gentle_and_drops_what_drifts():
    texts = make_texts()
    rng = np.random.default_rng(4)
    before = rng.standard_normal((30, 8)).astype(np.float32)
    held, among = np.arange(10), np.arange(60)
    assert refine.judge(before, before * 2, texts, held, among, seed=0).kept
    drifted = refine.judge(before, rng.standard_normal((30, 8)).astype(np.float32), texts, held, among, seed=0)
    assert not drifted.kept
    broken = before.copy()
    broken[0, 0] = np.nan
    assert not refine.judge(before, broken, texts, held, among, seed=0).kept
    # Everything in one direction: all documents tie, each held-out one is expected at rank 30.5.
    flat = np.ones((30, 1), np.float32)
    tied = refine.judge(flat, flat, texts, held, among, seed=0)
    assert tied.mrr_after == pytest.approx(1 / 30.5, abs=2e-3)


def test_guard_drops_what_finds_crops_less_well():
    """What tells documents apart is a small part of the vectors: without it they hardly move, but all tie."""
    texts = make_texts()
    before = np.full((30, 31), 0.0, dtype=np.float32)
    before[:, 0] = 1
    before[np.arange(30), 1 + np.arange(30)] = 0.3
    after = before.copy()
    after[:, 1:] = 0
    guard = refine.judge(before, after, texts, np.arange(10), np.arange(60), seed=0)
    assert guard.cosine > 0.95
    assert guard.mrr_before - guard.mrr_after > 0.005
    assert not guard.kept


def test_a_wild_learning_rate_is_caught(corpus):
    wild = StaticSVD(dim=16, num_pieces=100, refine_lr=1.0, refine_epochs=20).pretrain(None, corpus, seed=0)
    plain = StaticSVD(dim=16, num_pieces=100, refine_epochs=0).pretrain(None, corpus, seed=0)
    assert wild.report["refined"] == 0
    assert "dropped" in wild.report["refinement"]
    assert wild.encoder.fingerprint == plain.encoder.fingerprint


def test_pairs_are_trained_on_in_place_of_crops(corpus):
    method = StaticSVD(dim=16, num_pieces=100)
    pairs = [(t.split("\n")[0], t) for t in texts(corpus)]
    paired, plain = method.pretrain(None, corpus, seed=0, pairs=pairs), method.pretrain(None, corpus, seed=0)
    assert paired.encoder.fingerprint != plain.encoder.fingerprint
    assert method.pretrain(None, corpus, seed=0, pairs=pairs).encoder.fingerprint == paired.encoder.fingerprint


# --- the whole -------------------------------------------------------------------------------------------------


def test_topics_are_found_and_inflections_tied(pretrained, corpus):
    encoder = pretrained.encoder
    X = encoder.encode_documents(texts(corpus))
    topic = np.arange(len(corpus)) % 4
    cosine = X @ X.T
    same = topic[:, None] == topic[None, :]
    assert cosine[same].mean() > cosine[~same].mean() + 0.3
    query = encoder.encode_queries(["violin melodies"])  # "melodies" is not in the corpus, its stem's piece is
    assert (topic[np.argsort(-(query @ X.T)[0])[:10]] == 3).all()
    assert not encoder.encode_queries(["the of and"]).any()
    vocabulary_ids = encoder.tokenizer.get_vocab()
    assert vocabulary_ids["[UNK]"] == 0
    assert pretrained.report["refined"] in (0, 1)
    assert set(pretrained.counts()) >= {"documents", "tokens", "dim", "refined"}


def test_words_of_one_stem_share_a_row():
    documents = [
        "flow flows flowing plane",
        "flow flowing planes wing",
        "flows wing plane",
        "flowing flow planes flows",
    ] * 6
    corpus = Corpus.from_records([{"doc_id": str(i), "text": f"{d} n{i}"} for i, d in enumerate(documents)])
    encoder = StaticSVD(dim=4).pretrain(None, corpus, seed=0).encoder
    ids = encoder.tokenizer.get_vocab()
    row = encoder.table_VH[ids["flow"]]
    assert row.any()
    assert np.array_equal(row, encoder.table_VH[ids["flowing"]])
    untied = StaticSVD(dim=4).in_language(None).pretrain(None, corpus, seed=0).encoder
    ids = untied.tokenizer.get_vocab()
    assert not np.array_equal(untied.table_VH[ids["flow"]], untied.table_VH[ids["flowing"]])


def test_order_and_batches_of_documents_do_not_matter(corpus, pretrained):
    rows = np.random.default_rng(0).permutation(len(corpus))
    again = StaticSVD(dim=32, num_pieces=200).pretrain(None, corpus.select(rows), seed=7)
    assert again.encoder.fingerprint == pretrained.encoder.fingerprint
    doubled = corpus.select(np.concatenate([rows, rows]))
    assert (
        StaticSVD(dim=32, num_pieces=200).pretrain(None, doubled, seed=7).encoder.fingerprint
        == again.encoder.fingerprint
    )


def test_another_process_with_more_threads_makes_the_same_bytes():
    method, corpus = StaticSVD(num_pieces=200, lexical_dim=64, refine_epochs=1), make_wide_corpus()
    encoder = method.pretrain(None, corpus, seed=7).encoder
    assert encoder.dim == 256 + 64
    code = f"""
        import sys, hashlib
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_training_static_svd import make_wide_corpus
        from tamis.training.pretrain.static_svd import StaticSVD
        encoder = StaticSVD.from_json({method.model_dump_json()!r}, "").pretrain(None, make_wide_corpus(), seed=7).encoder
        print(hashlib.sha256(encoder.tokenizer.to_str().encode()).hexdigest(), encoder.fingerprint)
    """
    ours = hashlib.sha256(encoder.tokenizer.to_str().encode()).hexdigest()
    env = {**os.environ, "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    assert done.stdout.split() == [ours, encoder.fingerprint]


def test_saved_folder_is_read_by_sentence_transformers(pretrained, corpus, tmp_path):
    from sentence_transformers import SentenceTransformer

    with artefact.stage(tmp_path / "encoder", "encoder", settings={}, inputs={}, seed=7) as staging:
        pretrained.encoder.save(staging)
    loaded = load_encoder(tmp_path / "encoder")
    assert isinstance(loaded, StaticEncoder)
    assert loaded.fingerprint == pretrained.encoder.fingerprint
    some = [*texts(corpus)[:20], "melodies unheard-of ident3x Ünïcode"]
    theirs = SentenceTransformer(str(tmp_path / "encoder"), device="cpu").encode(some, normalize_embeddings=True)
    assert (loaded.encode_documents(some) * theirs).sum(axis=1).min() >= 1 - 1e-6


def test_doubling_a_text_and_cutting_dimensions(pretrained, corpus):
    encoder = pretrained.encoder
    some = texts(corpus)[:10]
    twice = encoder.encode_documents([f"{t}\n{t}" for t in some])
    assert np.allclose((encoder.encode_documents(some) * twice).sum(axis=1), 1, atol=1e-6)
    small = StaticSVD(dim=3, num_pieces=200, refine_epochs=0).pretrain(None, corpus, seed=7).encoder
    large = StaticSVD(dim=12, num_pieces=200, refine_epochs=0).pretrain(None, corpus, seed=7).encoder
    cut = StaticEncoder(large.table_VH[:, :3], large.tokenizer)
    assert ((cut.encode_documents(some) * small.encode_documents(some)).sum(axis=1) > 0.999).all()


def test_dual_form_tells_rare_words_apart(corpus):
    dual = StaticSVD(dim=16, num_pieces=200, lexical_dim=128, refine_epochs=0).pretrain(None, corpus, seed=7).encoder
    assert dual.dim == 16 + 128
    bags_norms = [np.linalg.norm(StaticEncoder(half, dual.tokenizer)._encode([""], "")) for half in (dual.table_VH,)]
    assert bags_norms == [0]
    signs = random_signs(["a", "b"], 70, seed=1)
    assert np.allclose(np.abs(signs), 70**-0.5)
    assert np.array_equal(signs[1], random_signs(["b"], 70, seed=1)[0])
    assert not np.array_equal(signs[0], signs[1])


@pytest.mark.parametrize(
    "documents",
    [
        ["one document alone with words"],
        ["first thing", "second matter"],
        ["same same", "same same"],
        ["😀 !!!", "..."],
        ["猫が座る。犬が走る。", "猫が走る。", "東京の天気"],
        ["x" * 5000, "y" * 101 + " short"],
        ["a b c"] * 3 + ["the of and"],
        [f"word{i} common" for i in range(30)],
        ["हिन्दी में लेख", "한국어 문서입니다", "naïve Straße ǅ"],
    ],
)
@pytest.mark.parametrize("lexical_dim", [0, 64])
def test_tiny_and_odd_corpora(documents, lexical_dim):
    corpus = Corpus.from_records([{"doc_id": str(i), "text": t} for i, t in enumerate(documents)])
    made = StaticSVD(lexical_dim=lexical_dim).pretrain(None, corpus, seed=0)
    vectors = made.encoder.encode_documents(documents)
    assert np.isfinite(vectors).all()
    assert made.report["documents"] == len(documents)
    assert made.encoder.dim == made.report["dim"] + lexical_dim
    norms = np.linalg.norm(vectors, axis=1)
    assert (np.isclose(norms, 1, atol=1e-5) | (norms == 0)).all()


def test_a_document_of_a_tiny_corpus_finds_itself():
    documents = ["first thing about apples", "second matter of pears", "third words on plums"]
    corpus = Corpus.from_records([{"doc_id": str(i), "text": t} for i, t in enumerate(documents)])
    encoder = StaticSVD().pretrain(None, corpus, seed=0).encoder
    scores = encoder.encode_queries(["apples", "pears", "plums"]) @ encoder.encode_documents(documents).T
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]


def test_no_documents_and_bad_settings():
    with pytest.raises(DataError, match="no documents"):
        StaticSVD().pretrain(None, make_corpus().select([]), seed=0)
    for values in ({"dim": 0}, {"stemmer": "klingon"}, {"refine_lr": -1.0}, {"unknown": 1}):
        with pytest.raises(RecipeError):
            StaticSVD(**values)


def test_language_of_the_method():
    assert StaticSVD().in_language("german").stemmer == "german"
    assert StaticSVD().in_language(None).stopwords is None
    assert StaticSVD().in_language("klingon").stemmer is None
    assert StaticSVD(stemmer=None).in_language("german").stemmer is None
    assert StaticSVD(stemmer=None).in_language("german").stopwords == "german"


# --- words and vocabulary --------------------------------------------------------------------------------------


def test_words_are_those_of_the_tokenizer(corpus):
    words = read_words(corpus, seed=0)
    tokenizer = vocabulary.make_tokenizer(words.vocabulary, [])
    encoded = {tuple(tokenizer.encode(t, add_special_tokens=False).tokens) for t in texts(corpus)}
    ours = {
        tuple(words.vocabulary[i] for i in words.flat[a:b])
        for a, b in zip(words.offsets, words.offsets[1:], strict=False)
    }
    assert encoded == ours
    assert list(words.counts) == sorted(words.counts, reverse=True)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
@settings(max_examples=60)
def test_any_text_splits_alike(documents):
    corpus = Corpus.from_records([{"doc_id": str(i), "text": t} for i, t in enumerate(documents)])
    words = read_words(corpus, seed=0)
    tokenizer = vocabulary.make_tokenizer(words.vocabulary, [])
    unknown = [t for d in documents for t in tokenizer.encode(d, add_special_tokens=False).tokens if t == "[UNK]"]
    assert not unknown


def test_rare_words_fall_into_pieces():
    words = ["photo", "graph", "photograph"]
    tokenizer = vocabulary.make_tokenizer(words, ["y", "s", "graph", "q"])
    assert tokenizer.encode("Photographs graphy q ωμέγα").tokens == ["photograph", "##s", "graph", "##y", "q", "[UNK]"]
    groups = vocabulary.tie(tuple(tokenizer.get_vocab()), words, None, frozenset({"photo"}))
    assert len(groups) == tokenizer.get_vocab_size()
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=ids.get)
    groups = vocabulary.tie(tokens, words, None, frozenset({"photo"}))
    segments = vocabulary.segment(["graphs", "photo", "ωω", "graphgraph"], tokenizer, groups).toarray()
    assert segments.sum(axis=1).tolist() == [2, 0, 0, 2]
    assert segments[3, groups[ids["graph"]]] == 1
    assert segments[3, groups[ids["##graph"]]] == 1


def test_sample_is_bounded_and_keyed(monkeypatch, corpus):
    from tamis.training.pretrain import words as module

    monkeypatch.setattr(module, "MAX_DOCS", 10)
    some, other = read_words(corpus, seed=0), read_words(corpus, seed=1)
    assert len(some) == len(other) == 10
    assert some.num_docs == len(corpus)
    assert set(some.vocabulary) != set(other.vocabulary)
    monkeypatch.setattr(module, "MAX_CHARS", 1)
    assert len(read_words(corpus, seed=0)) == 1


def test_bags_count():
    counts = bags(np.array([2, 0, 2, 1], np.int32), np.array([0, 3, 3, 4], np.int32), 3).toarray()
    assert counts.tolist() == [[1, 0, 2], [0, 0, 0], [0, 1, 0]]
