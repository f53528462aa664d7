"""Blocks that a daemon made, decoded here to what it decodes itself."""

import pytest

pytest.importorskip("xxhash", reason="runs in an environment of its own: deploy/setup --with gpu")

import hashlib

import numpy as np
import torch
from golden import rows_in

from kvtc import Element, Mode, Policy
from kvtc.gpu import Decoder, Profile

from samples import to_push
from synthetic import LAYOUT, TOKENS, calibrate, document

NAME = "synthetic.kvtc.safetensors"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return calibrate(tmp_path_factory.mktemp("profile")).read_bytes()


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
