"""The model under training: the same vectors as the encoder, layers, prompts, and back to an encoder."""

import gc
import json

import numpy as np
import pytest
import torch
from training_models import bert, static, transformer

from tamis.data import artefact
from tamis.errors import DataError, UsageError
from tamis.models import StaticEncoder, load_encoder
from tamis.training.machine import Machine, probe
from tamis.training.model import Model

CPU = Machine("cpu", "float32")
TEXTS = ["a b c", "d", "e f g h i j k l", "x ? y"]


@pytest.fixture(params=["transformer", "static"])
def encoder(request, tmp_path):
    return static() if request.param == "static" else transformer(tmp_path / "bert")


def unit(vectors):
    return torch.nn.functional.normalize(vectors, dim=-1).detach().numpy()


def test_vectors_are_those_of_the_encoder(encoder):
    model = Model(encoder, machine=CPU)
    model.module.eval()
    found = model.vectors(model.tokens(TEXTS, "document"))
    assert found.shape == (1, 4, encoder.dim) and found.dtype == torch.float32
    assert np.allclose(unit(found[0]), encoder.encode_documents(TEXTS), atol=1e-5)


def test_training_leaves_the_first_encoder_alone_and_saves_the_new_one(encoder, tmp_path):
    before = encoder.encode_queries(TEXTS)
    model = Model(encoder, machine=CPU)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(torch.linspace(0, 1, parameter.numel()).reshape(parameter.shape))
    made = model.encoder()
    assert np.array_equal(encoder.encode_queries(TEXTS), before)
    after = made.encode_queries(TEXTS)
    assert not np.allclose(after, before, atol=1e-2)
    assert isinstance(made, StaticEncoder) == isinstance(encoder, StaticEncoder)
    del model
    gc.collect()
    with artefact.stage(tmp_path / "saved", "encoder", settings={}, inputs={}, seed=0) as staging:
        made.save(staging)
    assert np.allclose(load_encoder(tmp_path / "saved").encode_queries(TEXTS), after, atol=1e-6)


def test_the_folder_of_an_encoder_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = Model(static(), machine=CPU).encoder()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tamis-encoder-")]
    del made
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_layers(tmp_path):
    model = Model(transformer(tmp_path / "bert"), machine=CPU)
    model.module.eval()
    assert model.num_layers == 2
    tokens = model.tokens(TEXTS, "query")
    both = model.vectors(tokens, (1, 2))
    assert both.shape == (2, 4, 32)
    torch.testing.assert_close(both[1:], model.vectors(tokens))
    assert not torch.allclose(both[0], both[1], atol=1e-3)
    for layer in (0, 3):
        with pytest.raises(UsageError, match=f"layer {layer}: the model has layers 1 to 2"):
            model.vectors(tokens, (layer,))
    table = Model(static(), machine=CPU)
    assert table.num_layers == 0
    with pytest.raises(UsageError, match="no layers"):
        table.vectors(table.tokens(TEXTS, "query"), (1,))


def test_texts_are_cut_to_the_lower_limit(tmp_path):
    model = Model(transformer(tmp_path / "bert"), machine=CPU)
    long = ["a " * 100]
    assert model.max_tokens == 64
    assert [model.tokens(long, "query", max_tokens=n).lengths[0] for n in (None, 10, 500)] == [64, 10, 64]
    assert Model(static(), machine=CPU).tokens(long, "query").lengths[0] == 100


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    """A vocabulary that has more words than the model has rows."""
    model = Model(load_encoder(bert(tmp_path / "small", num_rows=10)), machine=CPU)
    assert len(model.tokens(["a b"], "query")) == 1
    with pytest.raises(DataError, match="gives token 30 and the model has rows for 10"):
        model.tokens(["a", "z"], "query")


def test_prompts_by_side(tmp_path):
    folder = bert(tmp_path / "bert")
    prompts = {"query": "q ", "document": "d e "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    encoder = load_encoder(folder)
    model = Model(encoder, machine=CPU)
    model.module.eval()
    for side, encode in (("query", encoder.encode_queries), ("document", encoder.encode_documents)):
        assert np.allclose(unit(model.vectors(model.tokens(TEXTS, side))[0]), encode(TEXTS), atol=1e-5)
    encoder.model[1].include_prompt = False
    with pytest.raises(UsageError, match="leaves its prompts out"):
        Model(encoder, machine=CPU)


def test_bfloat16_is_near_float32(tmp_path):
    encoder = transformer(tmp_path / "bert", dropout=0)
    exact, rough = (Model(encoder, machine=Machine("cpu", p)) for p in ("float32", "bfloat16"))
    one, other = (model.vectors(model.tokens(TEXTS, "query"))[0] for model in (exact, rough))
    assert other.dtype == torch.float32 and not torch.equal(one, other)
    assert (unit(one) * unit(other)).sum(axis=1).min() > 0.999


def test_the_machine_is_probed_once():
    found = probe()
    assert found.device in ("cpu", "cuda") and found.precision in ("float32", "bfloat16") and found.why
    assert probe() is found
