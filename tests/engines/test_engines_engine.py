"""The engine a step is given: its names, documents as tasks, and the columns a task is read with."""

import pyarrow as pa
import pytest

from tamis.engines.engine import batches_of, opened, tasks
from tamis.errors import UsageError

BATCHES = [
    pa.record_batch({"text": ["a", "b"], "source": ["s", "t"]}),
    pa.record_batch({"text": ["c"], "source": ["s"]}),
]


class Batched:
    def batches(self, columns):
        return (batch.select(columns) for batch in BATCHES)


class Piece:
    def __init__(self, batches):
        self.held = batches

    def __len__(self):
        return sum(map(len, self.held))

    def read(self, columns):
        return (batch.select(columns) for batch in self.held)


class Pieced(Batched):
    def pieces(self):
        return [Piece(BATCHES), Piece([])]


@pytest.mark.parametrize(("documents", "sizes"), [(Batched(), [2, 1]), (Pieced(), [3, 0])])
def test_documents_become_tasks_with_the_same_rows_in_order(documents, sizes):
    found = list(tasks(documents, ["text", "source"]))
    assert [len(task) for task in found] == sizes
    batches = [batch for task in found for batch in batches_of(task, ["text"])]
    assert [batch.schema.names for batch in batches] == [["text"]] * 2
    assert [text for batch in batches for text in batch["text"].to_pylist()] == ["a", "b", "c"]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_local_engine_keeps_the_order(workers):
    with opened("local", workers) as engine:
        assert list(engine(abs, range(-5, 0))) == [5, 4, 3, 2, 1]


def test_another_engine_is_refused():
    with pytest.raises(UsageError, match="'spark': none of local, ray"), opened("spark", 1):
        pass
