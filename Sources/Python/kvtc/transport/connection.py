"""One socket to the daemon: requests go out under ids, a reader thread hands each reply to the thread that waits for it.

The thread always reads, so a daemon that is busy answering never waits for a client that is busy asking.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import queue
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ..protocol import wire
from ..protocol.errors import ConnectionLost, ErrorCode, KvtcError, RequestTimedOut, Unreachable, WireError
from ..protocol.messages import ErrorBody, HelloReply
from .arena import Arena
from .deadline import left

S = TypeVar("S", bound=wire.Struct)
DEFAULT_SOCKET = "/run/kvtcd/kvtcd.sock"


def default_socket() -> str:
    """The system's daemon; the user's own, started without root and without a socket path, where only that is there."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # As the daemon takes it: what is empty or relative counts as not set.
    own = os.path.join(runtime if os.path.isabs(runtime) else os.path.expanduser("~/.cache"), "kvtcd/kvtcd.sock")
    return own if not os.path.exists(DEFAULT_SOCKET) and os.path.exists(own) else DEFAULT_SOCKET


class Pending:
    """A request under way. Its reply comes in one or more parts."""

    def __init__(self, connection: Connection, opcode: int, request: int):
        self._connection = connection
        self._opcode = opcode
        self._frames: queue.SimpleQueue[tuple[Any, bool, int | None]] = queue.SimpleQueue()
        self._settled = threading.Lock()
        self._done = False
        self._then: list[Callable[[], None]] = []
        self.request = request

    def next(self) -> tuple[memoryview, bool, int | None]:
        """The next part: its body, whether more follow, and the file descriptor that came with it."""
        patience = left(self._connection.timeout)
        try:
            body, more, descriptor = self._frames.get(timeout=patience)
        except queue.Empty:
            raise RequestTimedOut(
                f"no answer to {wire.Opcode(self._opcode).name} within {patience:.3g} s",
                advice="see 'kvtcctl status' for the daemon's queues, or raise the client's timeout",
            ) from None
        if isinstance(body, Exception):
            raise body
        return body, more, descriptor

    def reply(self, kind: type[S]) -> S:
        """The decoded reply of a request that is answered in one part."""
        return kind.decode(self.next()[0])

    def when_done(self, action: Callable[[], None]) -> None:
        """Runs the action once the daemon will touch nothing of this request any more."""
        with self._settled:
            if not self._done:
                self._then.append(action)
                return
        action()

    def _deliver(self, body: Any, more: bool, descriptor: int | None) -> None:
        if not more:
            with self._settled:
                self._done, actions = True, self._then
            for action in actions:
                action()
        self._frames.put((body, more, descriptor))


class Connection:
    """A connected socket, the thread that reads it and the requests that wait."""

    #: What the daemon said about itself; set by the client, which says HELLO.
    server: HelloReply
    #: This connection's shared memory, once it is made.
    arena: Arena | None = None

    def __init__(self, path: str | None, timeout: float):
        self.path = path or os.environ.get("KVTC_SOCKET") or default_socket()
        self.timeout = timeout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A kernel-side limit for connecting (a daemon that accepts no connection leaves its queue full) and for sending alone: a
        # timeout of the socket object would apply to the reader as well. Zero would mean no limit.
        milliseconds = max(int(left(timeout) * 1000), 1)
        limit = struct.pack("ll", milliseconds // 1000, milliseconds % 1000 * 1000)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            self._socket.connect(self.path)
        except OSError as error:
            self._socket.close()
            advice = "start it with 'systemctl start kvtcd.socket', or name its socket with KVTC_SOCKET"
            if isinstance(error, PermissionError):
                advice = "its socket is for the group kvtcd: 'adduser YOU kvtcd' as root, then log in again"
            raise Unreachable(f"no kvtcd answers on {self.path}: {error.strerror or error}", advice=advice) from None
        self._ids = itertools.count(1)
        self._send = threading.Lock()
        self._lock = threading.Lock()
        self._pending: dict[int, Pending] = {}
        self._forgotten: deque[wire.Struct] = deque()
        self._failure: KvtcError | None = None
        self._slots: threading.Semaphore | None = None
        self._process = os.getpid()
        self._reader = threading.Thread(target=self._read_all, name="kvtc-reader", daemon=True)
        self._reader.start()

    def limit(self, in_flight: int) -> None:
        """From now on at most this many requests are under way; further ones wait."""
        self._slots = threading.Semaphore(max(in_flight, 1))

    def later(self, message: wire.Struct) -> None:
        """Sends a request before the next one; no thread waits for its reply. For what the garbage collector finds: it must not
        wait, and may hold any lock."""
        self._forgotten.append(message)

    def start(self, message: wire.Struct) -> Pending:
        """Sends a request and returns without waiting for its reply."""
        while self._forgotten:
            try:
                ended = self._forgotten.popleft()
            except IndexError:
                break
            self._start(ended)
        return self._start(message)

    def _start(self, message: wire.Struct) -> Pending:
        if os.getpid() != self._process:
            raise ConnectionLost("this connection belongs to the parent process")
        body = message.encode()
        if len(body) > wire.MAX_BODY:
            raise WireError(ErrorCode.TOO_LARGE, "body", f"{len(body)} bytes; the limit is {wire.MAX_BODY}")
        slots = self._slots
        if slots is not None and not slots.acquire(timeout=left(self.timeout)):
            raise RequestTimedOut("too many requests are under way", advice="read the replies of earlier ones")
        request = next(self._ids)
        pending = Pending(self, message.OPCODE, request)
        if slots is not None:
            pending.when_done(slots.release)
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._pending[request] = pending
        header = wire.Header(message.OPCODE, request, 0, len(body)).encode()
        try:
            self._send_whole(header, body)
        except RequestTimedOut as error:
            with self._lock:
                self._pending.pop(request, None)
            pending._deliver(error, False, None)
            raise
        except OSError as error:
            # A frame that was sent in part leaves nothing to go on with. The reader may know the daemon's own reason.
            self._socket_shutdown()
            self._reader.join(1)
            with self._lock:
                raise self._failure or ConnectionLost(f"sending failed: {error}") from None
        return pending

    def call(self, message: wire.Struct, kind: type[S]) -> S:
        """Sends a request and waits for its one reply."""
        return self.start(message).reply(kind)

    def is_over(self, error: KvtcError) -> bool:
        """Whether the error means that this connection has ended or is about to, and another one may do better."""
        is_parents = os.getpid() != self._process
        return is_parents or isinstance(error, ConnectionLost) or error is self._failure or error.code == ErrorCode.SHUTTING_DOWN

    def require_open(self) -> None:
        """Raises where the connection has ended. The daemon takes the memory of its arenas back then: what was read there since
        this was last asked may be zeros."""
        ended = select.poll()
        if self._failure is None:
            with contextlib.suppress(ValueError):
                ended.register(self._socket, select.POLLRDHUP)
                if not ended.poll(0):
                    return
        raise self._failure or ConnectionLost("the daemon closed the connection", advice="connect again; the daemon may have restarted")

    def close(self) -> None:
        """Ends the connection; requests under way fail with ``ConnectionLost``."""
        if os.getpid() == self._process:
            self._fail(ConnectionLost("the connection was closed"))
            self._socket_shutdown()
            if self._reader is not threading.current_thread():
                self._reader.join(5)
        # After a fork only the child's own descriptor: shutting down would end the parent's connection.
        self._socket.close()

    def _socket_shutdown(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _send_whole(self, header: bytes, body: bytearray) -> None:
        """Sends a frame. ``RequestTimedOut`` when the daemon's side is full and took nothing of it, ``OSError`` when it took
        a part."""
        patience = left(self.timeout)
        timed_out = RequestTimedOut(f"the daemon read nothing for {patience:.3g} s", advice="see whether kvtcd runs")
        if not self._send.acquire(timeout=patience):
            raise timed_out
        try:
            writable = select.poll()
            writable.register(self._socket, select.POLLOUT)
            buffers, is_whole = [memoryview(header), memoryview(body)], True
            while buffers:
                try:
                    sent = self._socket.sendmsg(buffers, (), socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if writable.poll(left(self.timeout) * 1000):
                        continue
                    raise timed_out if is_whole else TimeoutError(str(timed_out)) from None
                is_whole = False
                while buffers and sent >= len(buffers[0]):
                    sent -= len(buffers.pop(0))
                if buffers:
                    buffers[0] = buffers[0][sent:]
        finally:
            self._send.release()

    def _fail(self, error: KvtcError) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
            waiting, self._pending = list(self._pending.values()), {}
        for pending in waiting:
            pending._deliver(self._failure, False, None)

    def _read_all(self) -> None:
        stray = None
        try:
            while True:
                data, descriptor = self._read_header()
                header = wire.Header.decode(data)
                body = self._read_exactly(header.length)
                more = bool(header.status & wire.MORE)
                code = header.status & ~wire.MORE
                result: Any = memoryview(body)
                if code:
                    text = ErrorBody.decode(body)
                    result = KvtcError(text.message, code, text.field)
                with self._lock:
                    keep = more and not code
                    pending = self._pending.get(header.request) if keep else self._pending.pop(header.request, None)
                if pending is not None:
                    pending._deliver(result, keep, descriptor)
                else:
                    # An error that no request asked for precedes the end of the connection and explains it.
                    stray = result if code else None
                    if descriptor is not None:
                        os.close(descriptor)
        except EOFError as error:
            self._fail(stray or ConnectionLost(str(error), advice="connect again; the daemon may have restarted"))
        except (OSError, KvtcError) as error:
            self._fail(stray or ConnectionLost(f"reading failed: {error}", advice="connect again"))
        self._socket_shutdown()

    def _read_header(self) -> tuple[bytes, int | None]:
        data, descriptors = b"", array.array("i")
        while len(data) < wire.HEADER.size:
            space = socket.CMSG_SPACE(descriptors.itemsize)
            part, control, _, _ = self._socket.recvmsg(wire.HEADER.size - len(data), space, socket.MSG_CMSG_CLOEXEC)
            for level, kind, payload in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
            if not part:
                raise EOFError("the daemon closed the connection")
            data += part
        for extra in descriptors[1:]:
            os.close(extra)
        return data, descriptors[0] if descriptors else None

    def _read_exactly(self, count: int) -> bytearray:
        body = bytearray(count)
        view, done = memoryview(body), 0
        while done < count:
            received = self._socket.recv_into(view[done:])
            if not received:
                raise EOFError("the daemon closed the connection inside a reply")
            done += received
        return body
