"""Work for kvtcd beside the engine: a thread of its own, which never raises into the engine and never outgrows its memory."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("kvtc")


class Background:
    """Runs jobs one after another in a thread. A job that raises is logged, and the next one runs.

    At most ``pending`` jobs wait: what a job holds (pages, pinned slots) must not pile up behind a daemon that is slow. Ends by
    ``close``, or with the process, whose end does not wait for it.
    """

    def __init__(self, name: str, pending: int = 64) -> None:
        self._jobs: queue.Queue[Callable[[], object] | None] = queue.Queue(pending)
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], object]) -> bool:
        """Leaves the job to the thread, without waiting; false where it will not run: too many wait, or it is closed."""
        with self._closing:
            if self._closed:
                return False
            try:
                self._jobs.put_nowait(job)
            except queue.Full:
                return False
        return True

    def close(self) -> None:
        """Returns when the jobs that wait are done; there are no others after that."""
        with self._closing:
            closed, self._closed = self._closed, True
        if not closed:
            self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException:
                # An exit, too: without the thread, closing this would wait for ever.
                log.exception("a job in the background failed; going on")
