"""transformers' cache with the codec on the device, by Triton's interpreter on tensors of the processor, against a real daemon."""

import pytest

pytest.importorskip("xxhash", reason="runs in an environment of its own: deploy/setup --with gpu")
pytest.importorskip("transformers")

import subprocess

import golden
import numpy as np
import torch
from torch_models import letters, small, texts

from kvtc.adapters import coder
from kvtc.adapters.transformers import TransformersWorker, keep
from kvtc.calibration import capture

from conftest import binary

PAGE = 16
PROMPT = torch.tensor([letters("the quick brown fox jumps over the lazy dog").input_ids[: 2 * PAGE + 5]])
assert golden.ROOT


def model():
    return small("llama", max_position_embeddings=600, dtype="float16")


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    place = tmp_path_factory.mktemp("profile")
    shards = capture.capture_calibration(TransformersWorker(model(), letters), 4096, place / "samples.safetensors", texts())
    out = place / "model.kvtc.safetensors"
    subprocess.run([binary("kvtcctl", "KVTCCTL"), "calibrate", *shards, "--rank", "12", "--out", out], check=True, capture_output=True)
    return out


@pytest.fixture
def kept(profile, make_daemon, monkeypatch):
    coders, daemon, made = {}, make_daemon(**{"profiles.directory": str(profile.parent)}), []

    def one_coder(held, device, element, most):
        if not coders:
            coders[element] = coder.make_coder(held, device, element, most)
        return coders[element]

    monkeypatch.setattr("kvtc.adapters.device.make_coder", one_coder)

    def make(codec):
        with daemon.connect() as client:
            (known,) = client.profiles()
        options = {"mode": "transform", "ratio": 16, "window": PAGE, "deadline": 600.0, "profile": known["id"]}
        made.append(keep(model(), page_tokens=PAGE, socket=daemon.socket, codec=codec, **options))
        return made[-1]

    make.daemon = daemon
    yield make
    for one in made:
        one.close()


def rows(one):
    """Of the two pages, in a cache that the model has just gone on from."""
    state = one.worker.get_state()
    return [tensor[: 2 * PAGE] for tensor in state.tensors()]


def test_a_conversation_comes_back_the_same_by_either_codec(kept) -> None:
    options = {"max_new_tokens": 2, "do_sample": False}
    first = kept("device")
    first.model.generate(PROMPT, **options)
    first.flush()
    assert first.counts.stored_pages == 2
    with kept.daemon.connect() as client:
        status = client.status()
    assert (status["counters"]["encoded"], status["pages"]["coded"], status["pages"]["raw"]) == (0, 1, 1)
    brought = {}
    for codec in ("device", "daemon"):
        one, seen = kept(codec), []
        clear = one.worker.clear
        one.worker.clear = lambda one=one, seen=seen, clear=clear: (seen.append(rows(one)) if one.worker.position > 2 * PAGE else None, clear())
        tokens = one.model.generate(PROMPT, **options)
        assert one.counts.restored_tokens == 2 * PAGE
        brought[codec] = (tokens.tolist(), seen[0])
    assert brought["device"][0] == brought["daemon"][0]
    fresh = TransformersWorker(model())
    fresh.prefill(PROMPT[0].tolist())
    computed = [tensor[: 2 * PAGE] for tensor in fresh.get_state().tensors()]
    for mine, daemons, was in zip(brought["device"][1], brought["daemon"][1], computed, strict=True):
        np.testing.assert_array_equal(mine.view(np.int16), daemons.view(np.int16))
        # The sink, and the window's page.
        np.testing.assert_array_equal(mine[:4].view(np.int16), was[:4].view(np.int16))
        np.testing.assert_array_equal(mine[PAGE:].view(np.int16), was[PAGE:].view(np.int16))
        assert not np.array_equal(mine[4:PAGE], was[4:PAGE])
