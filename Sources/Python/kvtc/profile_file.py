"""The file of a profile, in memory that the daemon shares with all who ask for it."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os

from .blocks import require_blocks
from .protocol import messages
from .protocol.errors import KvtcError
from .transport.connection import Connection

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK


def request_on(connection: Connection, number: int) -> mmap.mmap:
    """The file of the profile of the session with that number, whose SHA-256 is the profile's id."""
    require_blocks(connection)
    body, _, descriptor = connection.start(messages.ProfileFile(number)).next()
    if descriptor is None:
        raise KvtcError("the daemon's PROFILE_FILE reply carries no file descriptor", advice="report this as a bug of kvtcd")
    try:
        reply = messages.ProfileFileReply.decode(body)
        # What can be cut ends its reader by SIGBUS, and what can be written is no longer what was checked.
        sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        if not sealed or os.fstat(descriptor).st_size != reply.bytes:
            raise KvtcError("the daemon's profile file is not sealed, or of another size", advice="report this as a bug of kvtcd")
        # Earlier kernels refuse shared mappings of what is sealed against writing; without a write to it a private one is as good.
        content = mmap.mmap(descriptor, reply.bytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
    if hashlib.sha256(content).digest() != reply.profile:
        raise KvtcError("the daemon's profile file is not the profile that it says", advice="report this as a bug of kvtcd")
    return content
