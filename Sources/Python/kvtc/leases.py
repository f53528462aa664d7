"""What a lookup finds, and the promise that it stays."""

from __future__ import annotations

from dataclasses import dataclass

from .protocol import messages
from .protocol.errors import ErrorCode, KvtcError
from .protocol.messages import Residence
from .transport.connection import Connection


@dataclass
class Lookup:
    """``leading_run`` pages from the first on can be pulled; ``lease`` (when asked for) keeps them so."""

    residence: list[Residence]
    leading_run: int
    lease: Lease | None


class Lease:
    """A promise that looked-up pages stay fetchable. Given back by ``release``, at the end of a with block, or by time; one
    without any reference left, with the next request of its connection.

    It ends when the daemon does; ``number`` is then of no use any more. A pull under a lease that is over goes on without it;
    ``number`` is 0 then.
    """

    def __init__(self, connection: Connection, number: int):
        self._connection, self.number = connection, number

    def on(self, connection: Connection) -> int:
        """The number for requests on that connection; 0 when the lease belongs to an earlier one."""
        return self.number if connection is self._connection else 0

    def release(self) -> None:
        """Gives it back. One that has ended by itself is no error."""
        if self.number:
            number, self.number = self.number, 0
            try:
                self._connection.call(messages.Release(number), messages.Empty)
            except KvtcError as error:
                if error.code != ErrorCode.UNKNOWN_LEASE and not self._connection.is_over(error):
                    raise

    def __del__(self) -> None:
        if self.number:
            self._connection.later(messages.Release(self.number))

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
