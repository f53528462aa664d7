"""Blocks that a daemon made decode here to its own bits; blocks that were made here it takes and decodes to the same."""

import pytest

pytest.importorskip("xxhash", reason="runs in an environment of its own: deploy/setup --with gpu")

import hashlib

import numpy as np
import torch
from golden import rows_in

from kvtc import Block, Element, Mode, Policy, PushOutcome
from kvtc.gpu import Decoder, Encoder, Page, Profile

from samples import to_push
from synthetic import LAYOUT, TOKENS, calibrate, document

NAME = "synthetic.kvtc.safetensors"


@pytest.fixture(scope="module", params=[1, 2, 3])
def file(tmp_path_factory, request):
    """Of so many bases by layers, and of few components, which the interpreter decodes sooner."""
    return calibrate(tmp_path_factory.mktemp("profile"), "--layer-groups", str(request.param), "--rank", "24").read_bytes()


@pytest.fixture
def session(daemon, file):
    directory = daemon.directory / "state" / "profiles"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NAME).write_bytes(file)
    with daemon.connect() as client:
        client.load_profile(NAME)
        policy = Policy(mode=Mode.TRANSFORM, quality=24, sink=4, window=0)
        yield client.open_session("s", profile=hashlib.sha256(file).digest(), layout=LAYOUT, policy=policy)


def paged(profile, pages):
    """A cache of f16 that holds so many pages, or has room for them."""
    return {
        (tensor.layer, tensor.role): torch.zeros((pages * 4, tensor.heads, TOKENS // 4, tensor.head_dim), dtype=torch.float16)
        for tensor in profile.geometry.tensors
    }


def bits(page):
    """Rows as the session's layout has them, which is how blocks have them."""
    return np.frombuffer(page, np.int16).reshape(TOKENS, -1)


def test_what_the_daemon_codes_is_decoded_to_its_own_bits(session):
    keys, contents = document(1, 2)
    session.push(to_push(keys, contents, TOKENS))
    session.client.flush()
    profile = Profile(session.profile_file())
    assert profile.id == session.profile
    slots, cache = [np.arange(TOKENS)[::-1] + TOKENS, np.arange(TOKENS)], paged(profile, 2)
    parts = {part.index: bytes(part.data) for part in session.pull_blocks(keys) if part.is_block}
    decoder = Decoder(profile, "cpu", Element.F16)
    assert decoder.restore([parts[0], parts[1]], slots, cache, is_verified=True).failed == {}
    for own, page in zip(slots, session.fetch(keys)):
        assert page is not None and np.array_equal(rows_in(profile, cache, own), bits(page))


def test_what_is_coded_here_the_daemon_takes_and_decodes_to_the_same_bits(session):
    (key,), (page,) = document(2, 1)
    profile, slots = Profile(session.profile_file()), np.arange(TOKENS)
    decoder, cache, back = Decoder(profile, "cpu", Element.F16), paged(profile, 1), paged(profile, 1)
    place(profile, cache, 0, bits(page))
    (block,) = Encoder(decoder).encode([Page(slots, 0, slots < 4)], cache, ratio=24)
    assert session.push_blocks([Block(key, 0, TOKENS, block)]) == [PushOutcome.STORED]
    assert decoder.restore([block], [slots], back).failed == {}
    found = bits(session.fetch([key])[0])
    assert np.array_equal(rows_in(profile, back, slots), found) and np.array_equal(found[:4], bits(page)[:4])


def place(profile, cache, number, rows):
    at = 0
    for tensor in profile.geometry.tensors:
        own = torch.from_numpy(rows[:, at : at + tensor.elements].copy()).view(torch.float16).view(4, -1, tensor.heads, tensor.head_dim)
        cache[tensor.layer, tensor.role][number * 4 : number * 4 + 4] = own.transpose(1, 2)
        at += tensor.elements
