"""As much of a client of Redis as it takes to look at one server and to damage what it keeps."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any


class RedisError(OSError):
    """An error that a server answers; it may be one that passes."""


class RedisConnection:
    """A connection with TLS. Bulks and short texts come as bytes."""

    def __init__(self, host: str, port: int, authority: Path, password: str, timeout: float = 5) -> None:
        context = ssl.create_default_context(cafile=str(authority))
        plain = socket.create_connection((host, port), timeout=timeout)
        try:
            self._socket = context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        self._stream = self._socket.makefile("rb")
        self.command("AUTH", password)

    def __enter__(self) -> RedisConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def command(self, *words: object) -> Any:
        """Sends a command and waits for its answer. Raises RedisError for an error, OSError where the connection ends."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        request = b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)])
        self._socket.sendall(request)
        return self._answer()

    def _answer(self) -> Any:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, text = line[:1], line[1:-2]
        if kind == b"+":
            return text
        if kind == b"-":
            raise RedisError(text.decode(errors="replace"))
        if kind == b":":
            return int(text)
        length = int(text)
        if length < 0:
            return None
        if kind == b"$":
            return self._stream.read(length + 2)[:-2]
        return [self._answer() for _ in range(length)]
