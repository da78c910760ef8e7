"""Artefacts, durable writes and settings: all or nothing on the disk, each fault by its name."""

import ctypes
import errno
import hashlib
import stat
from pathlib import Path
from typing import Annotated, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from tamis.data import Settings, artefact, durable
from tamis.errors import ArtefactError, RecipeError, ResourceError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def make(folder, files, *, seed=1, settings=None, volatile=()):
    with artefact.stage(folder, "thing", settings=settings or {}, inputs={"a": "1"}, seed=seed) as staging:
        for name, data in files.items():
            staging.write_bytes(name, data)
        staging.counts["files"] = len(files)
        staging.volatile_files |= set(volatile)
    return artefact.read_manifest(folder)


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=4), st.integers(0, 2**63 - 1), st.binary(max_size=50))
def test_manifest_round_trip(tmp_path_factory, settings, seed, data):
    folder = tmp_path_factory.mktemp("m") / "x"
    settings = {k: v for k, v in settings.items() if k.isprintable()}
    manifest = make(folder, {"a/b.bin": data}, seed=seed, settings=settings)
    assert manifest.settings == settings
    assert manifest.files["a/b.bin"].sha256 == hashlib.sha256(data).hexdigest()
    assert artefact.open_verified(folder, "thing") == manifest
    assert artefact.is_done(folder, artefact.stage_fingerprint("thing", settings, {"a": "1"}, seed))
    assert not artefact.is_done(folder, artefact.stage_fingerprint("thing", settings, {"a": "2"}, seed))


def test_what_is_equal_and_what_is_not(tmp_path):
    text = b"same <!-- volatile -->%d\n<!-- /volatile --> end"
    one = make(tmp_path / "1" / "x", {"a": b"1", "r": text % 1}, volatile=["r"])
    two = make(tmp_path / "2" / "x", {"a": b"1", "r": text % 2}, volatile=["r"])
    assert one != two
    assert one.content == two.content == artefact.fingerprint({"a": one.files["a"].sha256})
    tree = artefact.hash_tree(tmp_path / "1")
    assert tree == artefact.hash_tree(tmp_path / "2")
    assert sorted(tree) == ["x/a", "x/manifest.json", "x/r"]
    make(tmp_path / "3" / "x", {"a": b"1", "r": text.replace(b"same", b"other") % 1}, volatile=["r"])
    assert artefact.hash_tree(tmp_path / "3") != tree
    make(tmp_path / "4" / "x", {"a": b"2", "r": text % 1}, volatile=["r"])
    assert artefact.hash_tree(tmp_path / "4") != tree
    (tmp_path / "1" / "x").rename(tmp_path / "1" / ".x.old")
    assert artefact.hash_tree(tmp_path / "1") == {}
    (tmp_path / "2" / "x" / "a").write_bytes(b"9")  # the bytes count, not what the manifest says of them
    assert artefact.hash_tree(tmp_path / "2")["x/a"] == hashlib.sha256(b"9").hexdigest()
    (tmp_path / "2" / "x" / "a").unlink()
    with pytest.raises(ArtefactError, match="x/a: cannot be read"):
        artefact.hash_tree(tmp_path / "2")


def test_damage_is_named(tmp_path):
    folder = tmp_path / "x"
    manifest = make(folder, {"a": b"12345", "b": b"12345", "deep/c": b"1", "d": b"1", "e": b"1", "f": b"1"})
    (folder / "a").write_bytes(b"1234")
    (folder / "b").write_bytes(b"12346")
    (folder / "deep" / "c").rename(folder / "deep" / "new")
    (folder / "d").unlink()
    (folder / "d").symlink_to("e")
    (folder / "link").symlink_to("nowhere")
    expected = [
        f"{folder}/a: 4 bytes, the manifest says 5",
        f"{folder}/d: a link, not a file",
        f"{folder}/deep/c: missing",
        f"{folder}/deep/new: not in the manifest",
        f"{folder}/link: not in the manifest",
    ]
    assert artefact.problems(folder, manifest, deep=False) == expected
    expected.insert(1, f"{folder}/b: content differs from its SHA-256 in the manifest")
    assert artefact.problems(folder, manifest, deep=True) == expected
    with pytest.raises(ArtefactError, match=r"(?s)x/a: 4 bytes.*x/link: not in the manifest\nRun the build again"):
        artefact.open_verified(folder, "thing")
    with pytest.raises(ArtefactError, match="holds a thing, expected a corpus"):
        artefact.open_verified(folder, "corpus")
    assert not artefact.is_done(folder, manifest.fingerprint)


def test_an_unreadable_file_is_a_problem_not_a_crash(tmp_path, monkeypatch):
    manifest = make(tmp_path / "x", {"a": b"1"})

    def refuse(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(durable, "sha256", refuse)
    assert artefact.problems(tmp_path / "x", manifest, deep=True) == [
        f"{tmp_path}/x/a: cannot be read (Input/output error)"
    ]


def edited(folder, **changes):
    path = folder / artefact.MANIFEST
    values = orjson.loads(path.read_bytes()) | changes
    path.write_bytes(orjson.dumps(values))


def test_a_manifest_that_cannot_be_believed(tmp_path):
    folder = tmp_path / "x"
    manifest = make(folder, {"a": b"1"})
    path = folder / artefact.MANIFEST
    whole = path.read_bytes()
    for changes in (
        {"counts": {"files": 2}},
        {"seed": 2},
        {"extra": 1},
        {"volatile": {}},
        {"format": "1"},
        {"checksum": "0"},
    ):
        edited(folder, **changes)
        with pytest.raises(ArtefactError, match=r"manifest\.json: damaged \(its content differs"):
            artefact.read_manifest(folder)
        path.write_bytes(whole)
    edited(folder, format=artefact.FORMAT + 1)
    with pytest.raises(ArtefactError, match=r"made by format 2, this reads up to 1. Upgrade tamis"):
        artefact.read_manifest(folder)
    values = orjson.loads(whole)
    values["seed"] = "one"  # a checksum that fits what is no manifest
    values["checksum"] = artefact.fingerprint({k: v for k, v in values.items() if k != "checksum"})
    path.write_bytes(orjson.dumps(values))
    with pytest.raises(ArtefactError, match=r"(?s)damaged .*seed: Input should be"):
        artefact.read_manifest(folder)
    for data in (b"", b"{", b"[]", b'"x"', b"{}", b'{"format":1}', b"\xff", b"[" * 5000, whole[:-20]):
        path.write_bytes(data)
        with pytest.raises(ArtefactError, match="damaged"):
            artefact.read_manifest(folder)
        assert not artefact.is_done(folder, manifest.fingerprint)
    path.unlink()
    for place in (folder, tmp_path / "absent", folder / "a"):
        with pytest.raises(ArtefactError, match=r"no manifest\.json"):
            artefact.read_manifest(place)


def test_replacing_is_one_step_for_readers(tmp_path):
    make(tmp_path / "x", {"a": b"1"})
    seen = []

    def look(moment, name, path):
        seen.append((tmp_path / "x" / "a").read_bytes())

    durable.observer = look
    try:
        make(tmp_path / "x", {"a": b"2"}, seed=2)
    finally:
        durable.observer = None
    assert sorted(set(seen)) == [b"1", b"2"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_replacing_where_names_cannot_be_swapped(tmp_path, monkeypatch):
    make(tmp_path / "x", {"a": b"1"})
    for library in (
        type("NoSwap", (), {}),
        type("Refuses", (), {"renameat2": lambda *args: ctypes.set_errno(errno.EINVAL) or -1}),
    ):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno, library=library: library())
        make(tmp_path / "x", {"a": library.__name__.encode()})
        assert (tmp_path / "x" / "a").read_bytes() == library.__name__.encode()
        assert [p.name for p in tmp_path.iterdir()] == ["x"]
    monkeypatch.undo()
    with pytest.raises(ResourceError, match="cannot swap"):
        durable.exchange(tmp_path / "absent", tmp_path / "x")


def test_what_a_killed_run_left_does_not_leak_into_the_next(tmp_path):
    (tmp_path / ".x.partial").mkdir()
    (tmp_path / ".x.partial" / "half").write_bytes(b"1")
    assert list(make(tmp_path / "x", {"a": b"1"}).files) == ["a"]


def test_sweep_clears_what_is_ours_alone(tmp_path):
    make(tmp_path / "x", {"a": b"1"})
    for name in (".x.partial", ".x.old", ".y.old", "ledger/.z.partial", ".hidden", "plain.old"):
        (tmp_path / name).mkdir(parents=True)
    for name in (".x.json.new", ".note.old", ".lock", ".lock.holder", "plain.new"):
        (tmp_path / name).write_bytes(b"")
    artefact.sweep(tmp_path)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == sorted(
        [
            ".hidden",
            ".lock",
            ".lock.holder",
            ".note.old",
            "ledger",
            "plain.new",
            "plain.old",
            "x",
            "x/a",
            "x/manifest.json",
            "y",
        ]
    )
    artefact.sweep(tmp_path / "absent")


def test_a_staging_folder_is_private_until_it_stands(tmp_path):
    with artefact.stage(tmp_path / "x", "thing", settings={}, inputs={}, seed=1) as staging:
        assert stat.S_IMODE(staging.folder.stat().st_mode) == 0o700
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_library_that_leaves_a_link_or_a_setting_that_is_no_json(tmp_path):
    with (
        pytest.raises(ArtefactError, match="a link; an artefact holds plain files only"),
        artefact.stage(tmp_path / "x", "thing", settings={}, inputs={}, seed=1) as staging,
    ):
        (staging.folder / "l").symlink_to("/etc/hostname")
    with (
        pytest.raises(TypeError),
        artefact.stage(tmp_path / "x", "thing", settings={"p": Path("x")}, inputs={}, seed=1),
    ):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_every_name_below_a_new_artefact_is_synced(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(durable, "sync_folder", synced.append)
    with artefact.stage(tmp_path / "new" / "deep" / "x", "thing", settings={}, inputs={}, seed=1) as staging:
        staging.write_bytes("one/two/a", b"1")
        (staging.folder / "lib" / "er").mkdir(parents=True)
        (staging.folder / "lib" / "er" / "b").write_bytes(b"2")
    inside = staging.folder
    wanted = {inside, inside / "one", inside / "one/two", inside / "lib", inside / "lib/er"}
    assert wanted | {tmp_path, tmp_path / "new", tmp_path / "new/deep"} <= set(synced)
    assert synced[-1] == tmp_path / "new/deep"


def test_write_bytes_replaces_whole_and_hashed_file_counts(tmp_path):
    durable.write_bytes(tmp_path / "f", b"old")
    (tmp_path / ".f.new").write_bytes(b"left by a crash")
    durable.write_bytes(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    with durable.create(tmp_path / "g") as file:
        assert file.writable()
        assert file.write(memoryview(b"abcd").cast("H")) == 4
        assert file.tell() == file.num_bytes == 4
    file.close()
    assert file.sha256 == durable.sha256(tmp_path / "g") == hashlib.sha256(b"abcd").hexdigest()
    with pytest.raises(ResourceError, match=r"cannot create .*File exists"), durable.create(tmp_path / "g"):
        raise AssertionError
    (tmp_path / "l").symlink_to("absent")
    durable.remove(tmp_path / "l")
    durable.remove(tmp_path / "never")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "g"]


def test_a_disk_that_cannot_be_asked(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(durable.shutil, "disk_usage", refuse)
    with pytest.raises(ResourceError, match="Check the disk"):
        durable.rename(tmp_path / "absent", tmp_path / "x")


class Inner(Settings):
    size: Annotated[int, Field(ge=1)] = 3


class Outer(Settings):
    method: Literal["outer"] = "outer"
    names: tuple[str, ...] = ()
    inner: Inner = Inner()


def test_settings_are_frozen_strict_and_name_every_problem():
    assert Outer.from_json('{"names": ["a"], "inner": {"size": 2}}', "x.toml") == Outer(
        names=("a",), inner=Inner(size=2)
    )
    with pytest.raises(RecipeError, match=r"(?s)Outer: 2 problem\(s\)\n  names: .*\n  other: Extra inputs"):
        Outer(names="a", other=1)
    with pytest.raises(RecipeError, match=r"(?s)x\.toml: 2 problem\(s\)\n  names.0: .*\n  inner.size: .* \(got 0\)"):
        Outer.from_json('{"names": [1], "inner": {"size": 0}}', "x.toml")
    with pytest.raises(RecipeError, match=r"\(top\): Invalid JSON"):
        Outer.from_json("{", "x.toml")
    with pytest.raises(ValueError, match="frozen"):
        Outer().names = ("b",)
