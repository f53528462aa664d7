"""The golden vectors that the Swift protocol module is tested with: same bytes, same values, in both directions."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from kvtc import ErrorCode
from kvtc.protocol import messages, wire

VECTORS = json.loads((Path(__file__).parents[2] / "Golden" / "wire.json").read_text())
EMPTY_REPLIES = {"Release", "CloseSession"}
SHARED_REPLIES = {"PullBlocks": messages.PullReply, "PushBlocks": messages.PushReply}
JSON_REPLIES = {"Status", "Profile", "StoreProfile", "Explain", "Shared"}


def kind_of(vector):
    base, _, variants = vector["name"].partition(".")
    variant = variants.rpartition(".")[2]
    name = base[0].upper() + base[1:]
    if base == "error":
        return messages.ErrorBody
    if variant == "identity":
        return messages.OpenIdentifiedSession
    if variant == "part":
        return messages.PullPart
    if variant != "reply":
        return getattr(messages, name)
    if name in EMPTY_REPLIES:
        return messages.Empty
    if name in SHARED_REPLIES:
        return SHARED_REPLIES[name]
    return messages.JsonReply if name in JSON_REPLIES else getattr(messages, name + "Reply")


def plain(value):
    """A decoded message as the vectors write it: camel case, bytes in hexadecimal, nothing for what is not there."""
    if dataclasses.is_dataclass(value):
        return {
            re.sub(r"_(\w)", lambda m: m[1].upper(), item.name): plain(getattr(value, item.name))
            for item in dataclasses.fields(value)
            if getattr(value, item.name) is not None
        }
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    return [plain(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_golden(vector):
    data = bytes.fromhex(vector["hex"])
    header = wire.Header.decode(data)
    assert (header.opcode, header.request, header.status) == (vector["opcode"], vector["id"], vector["status"])
    body = data[wire.HEADER.size :]
    assert header.length == len(body)
    message = kind_of(vector).decode(body)
    assert plain(message) == vector["fields"]
    assert wire.frame(header.opcode, header.request, message.encode(), header.status) == data
    if hasattr(message, "OPCODE"):
        assert header.opcode == message.OPCODE


def test_every_error_code_has_its_documented_name():
    named = {vector["name"].partition(".")[2]: vector["status"] for vector in VECTORS if vector["name"].startswith("error.")}
    assert named == {code.label: int(code) for code in ErrorCode}


def test_every_request_and_reply_is_covered():
    seen = {vector["opcode"] for vector in VECTORS}
    assert seen == {int(code) for code in wire.Opcode} | {wire.REPLY | code for code in wire.Opcode}
