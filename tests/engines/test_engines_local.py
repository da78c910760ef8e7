"""The local engine: order, equality across workers, errors and deaths that name their task."""

import os
import signal
import time

import pytest

from tamis.engines.local import Limits, map_ordered
from tamis.errors import DataError, ResourceError


def square(task: int) -> int:
    time.sleep(0.002 * (task % 3))
    return task * task


def fail(task: int) -> int:
    if task == 3:
        raise DataError(f"task {task} holds a bad line")
    return task


def die(task: str) -> str:
    if task == "killer.parquet":
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def exhaust(task: str) -> int:
    if task == "memory":
        return len(bytearray(1 << 32))
    while task == "cpu":
        pass
    return 0


def unpicklable(task: int) -> object:
    return lambda: task


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_are_in_order_and_equal_for_any_number_of_workers(workers):
    assert list(map_ordered(square, range(20), workers=workers)) == [t * t for t in range(20)]


def test_no_task_is_no_result():
    assert list(map_ordered(square, [], workers=2)) == []


def test_tasks_in_flight_are_bounded():
    taken = []

    def tasks():
        for task in range(50):
            taken.append(task)
            yield task

    results = map_ordered(square, tasks(), workers=2)
    for seen, _ in enumerate(results, 1):
        assert len(taken) <= seen - 1 + 4
        if seen == 10:
            break
    results.close()
    assert len(taken) < 50


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_keeps_type_and_message(workers):
    with pytest.raises(DataError, match="task 3 holds a bad line"):
        list(map_ordered(fail, range(6), workers=workers))


def test_a_dead_child_names_its_task():
    with pytest.raises(ResourceError, match=r"killer\.parquet.*SIGKILL"):
        list(map_ordered(die, ["a", "b", "killer.parquet", "c"], workers=2))


def test_a_dead_child_can_be_one_result():
    results = list(
        map_ordered(die, ["a", "killer.parquet", "c"], workers=1, on_death=lambda task, cause: f"{task} {cause}")
    )
    assert results == ["a", "killer.parquet was ended by SIGKILL", "c"]


def test_limits_hold_in_the_child_only():
    results = []
    with pytest.raises(MemoryError):
        list(map_ordered(exhaust, ["memory"], workers=1, limits=Limits(1 << 30, 5), on_death=lambda t, c: -1))
    results = list(map_ordered(exhaust, ["cpu", "ok"], workers=1, limits=Limits(1 << 30, 1), on_death=lambda t, c: -1))
    assert results == [-1, 0]


def test_a_result_that_cannot_be_sent_is_an_error():
    with pytest.raises(Exception, match="task 1"):
        list(map_ordered(unpicklable, [1], workers=2))


def test_leaving_early_ends_the_children():
    import multiprocessing

    results = map_ordered(square, range(1000), workers=2)
    assert next(results) == 0
    results.close()
    assert multiprocessing.active_children() == []
