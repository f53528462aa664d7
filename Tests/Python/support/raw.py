"""A connection without a client library, for saying things that the library never would."""

import socket
import struct

from kvtc.protocol import messages, wire


class Raw:
    def __init__(self, path, hello=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self.request = 0
        if hello:
            assert self.ask(messages.Hello(client="raw"))[0] == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def frame(self, opcode, body=b"", magic=wire.MAGIC, version=wire.VERSION, length=None):
        """Sends a frame whose header need not tell the truth; returns its id."""
        self.request += 1
        size = len(body) if length is None else length
        self.send(struct.pack("<IHHQII", magic, version, opcode, self.request, 0, size) + bytes(body))
        return self.request

    def read(self):
        """The next reply: its error code (0 for none), its body and its header."""
        header = wire.Header.decode(self._exactly(wire.HEADER.size))
        return header.status & ~wire.MORE, self._exactly(header.length), header

    def ask(self, message, body=None):
        """Sends a message (or the given body in its place) and returns code and decoded error, or body."""
        sent = self.frame(message.OPCODE, message.encode() if body is None else body)
        code, reply, header = self.read()
        assert header.request == sent and header.opcode == message.OPCODE | wire.REPLY
        return code, messages.ErrorBody.decode(reply) if code else reply

    def closed(self):
        """Whether the daemon ends the connection, whatever else it still says."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError(f"closed after {len(data)} of {count} bytes")
            data += part
        return data
