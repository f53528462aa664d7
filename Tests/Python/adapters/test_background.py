"""Work beside the engine: in order, bounded, and whatever a job raises stays there."""

import sys
import threading

import pytest

from kvtc.adapters.background import Background


def test_jobs_run_in_order_and_a_close_waits_for_them():
    done = []
    background = Background("test")
    assert all(background.submit(lambda number=number: done.append(number)) for number in range(50))
    background.close()
    assert done == list(range(50))
    assert not background.submit(lambda: done.append("late"))
    background.close()
    assert done[-1] == 49


@pytest.mark.parametrize("job", [lambda: [][1], sys.exit], ids=["error", "exit"])
def test_a_job_that_raises_is_logged_and_the_next_one_runs(caplog, job):
    done = []
    background = Background("test")
    background.submit(job)
    background.submit(lambda: done.append(threading.current_thread().name))
    background.close()
    assert done == ["test"] and "a job in the background failed" in caplog.text


def test_no_more_jobs_wait_than_allowed():
    begun, go = threading.Event(), threading.Event()
    background = Background("test", pending=2)

    def block():
        begun.set()
        go.wait()

    assert background.submit(block)
    begun.wait()
    assert [background.submit(int) for _ in range(3)] == [True, True, False]
    go.set()
    background.close()
