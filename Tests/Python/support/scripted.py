"""A small server in this process that keeps pages in a dictionary and misbehaves on demand.

It lets the client be tested against what a healthy daemon never does: silence, nonsense, a connection cut in a reply.
"""

import json
import mmap
import os
import socket
import threading

from kvtc.protocol import messages, wire

REQUESTS = {kind.OPCODE: kind for kind in vars(messages).values() if hasattr(kind, "OPCODE")}
# What clients send to a daemon that says no more than the first two feature bits.
REQUESTS[wire.Opcode.OPEN_SESSION] = messages.OpenSession


class ScriptedDaemon:
    """Serves one connection after another. ``override`` maps an opcode to a function(server, connection, id, request)."""

    def __init__(self, path, **hello):
        self.path = str(path)
        self.hello = {"version": 1, "features": 3, "instance": 7, "max_body": wire.MAX_BODY, "max_in_flight": 4}
        self.hello |= {"max_arena": 1 << 20, "server": "scripted"} | hello
        self.override = {}
        self.seen = []
        self.pages = {}
        self.arena = None
        self.token_bytes = 64
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    while self._one(connection):
                        pass
                except OSError:
                    pass

    def _one(self, connection):
        data = connection.recv(wire.HEADER.size, socket.MSG_WAITALL)
        if len(data) < wire.HEADER.size:
            return False
        header = wire.Header.decode(data)
        body = connection.recv(header.length, socket.MSG_WAITALL) if header.length else b""
        kind = REQUESTS[header.opcode]
        if kind is messages.OpenSession and self.hello["features"] & messages.FEATURE_IDENTITY:
            kind = messages.OpenIdentifiedSession
        request = kind.decode(body)
        self.seen.append(request)
        handler = self.override.get(header.opcode) or getattr(type(self), header_name(header.opcode))
        return handler(self, connection, header.request, request) is not False

    def reply(self, connection, request_id, request, message, status=0):
        connection.sendall(wire.frame(request.OPCODE | wire.REPLY, request_id, message.encode(), status))

    def error(self, connection, request_id, request, code, field="", message="refused"):
        self.reply(connection, request_id, request, messages.ErrorBody(field, message), code)

    def on_hello(self, connection, request_id, request):
        self.reply(connection, request_id, request, messages.HelloReply(**self.hello))

    def on_arena(self, connection, request_id, request):
        descriptor = os.memfd_create("arena")
        os.ftruncate(descriptor, request.bytes)
        self.arena = mmap.mmap(descriptor, request.bytes)
        body = messages.ArenaReply(1, request.bytes).encode()
        socket.send_fds(connection, [wire.frame(request.OPCODE | wire.REPLY, request_id, body)], [descriptor])
        os.close(descriptor)

    def on_open_session(self, connection, request_id, request):
        self.reply(connection, request_id, request, messages.OpenSessionReply(1, request.profile, self.token_bytes))

    def on_push(self, connection, request_id, request):
        source = request.inline if request.arena == wire.NONE32 else self.arena
        outcomes = bytearray()
        for entry in request.entries:
            outcomes.append(1 if entry.key in self.pages else 0)
            self.pages.setdefault(entry.key, bytes(source[entry.offset : entry.offset + entry.length]))
        self.reply(connection, request_id, request, messages.PushReply(outcomes))

    def on_pull(self, connection, request_id, request):
        # Backwards: nothing promises that pages come in the order asked for.
        for index, entry in reversed(list(enumerate(request.entries))):
            page = self.pages.get(entry.key)
            part = messages.PullPart(index, 0, 1, 1 if page is None else 0, 0, len(page or b""), b"")
            if page is not None and request.arena == wire.NONE32:
                part.inline = page
            elif page is not None:
                part.offset = entry.offset
                self.arena[entry.offset : entry.offset + len(page)] = page
            self.reply(connection, request_id, request, part, wire.MORE)
        self.reply(connection, request_id, request, messages.PullReply(0, 0, 0, 0))

    def on_ping(self, connection, request_id, request):
        self.reply(connection, request_id, request, messages.PingReply(request.payload))

    def on_status(self, connection, request_id, request):
        self.reply(connection, request_id, request, messages.JsonReply(json.dumps({"state": "ready"})))

    def on_drop(self, connection, request_id, request):
        self.reply(connection, request_id, request, messages.DropReply(len(request.keys)))

    def on_close_session(self, connection, request_id, request):
        self.reply(connection, request_id, request, messages.Empty())


def header_name(opcode):
    return "on_" + wire.Opcode(opcode).name.lower()
