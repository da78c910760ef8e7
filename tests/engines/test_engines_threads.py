"""The thread engine: order, equality for any number of workers, bounded flight, errors with their own type."""

import threading
import time

import pytest

from tamis.engines.threads import map_threads
from tamis.errors import DataError


def slow_square(task: int) -> int:
    time.sleep(0.002 * (3 - task % 4))
    return task * task


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_are_in_order_and_equal_for_any_number_of_workers(workers):
    assert list(map_threads(slow_square, range(23), workers=workers)) == [t * t for t in range(23)]
    assert list(map_threads(slow_square, [], workers=workers)) == []


def test_work_is_done_at_the_same_time():
    meeting = threading.Barrier(2, timeout=5)
    assert list(map_threads(lambda _: meeting.wait() in (0, 1), range(2), workers=2)) == [True, True]


def test_tasks_in_flight_are_bounded_and_read_in_this_thread():
    taken = []

    def tasks():
        for task in range(50):
            taken.append(threading.current_thread())
            yield task

    results = map_threads(slow_square, tasks(), workers=2)
    for seen in range(1, 11):
        assert next(results) == (seen - 1) ** 2
        assert len(taken) <= seen + 3
    results.close()
    assert len(taken) < 20
    assert set(taken) == {threading.current_thread()}
    assert not [t for t in threading.enumerate() if t.name.startswith("tamis")]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_error_in_order_keeps_its_type(workers):
    started = []

    def fail(task):
        started.append(task)
        time.sleep(0.002 * (5 - min(task, 5)))
        if task >= 3:
            raise DataError(f"task {task}")
        return task

    results = map_threads(fail, range(1000), workers=workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="task 3"):
        next(results)
    assert len(started) < 20
