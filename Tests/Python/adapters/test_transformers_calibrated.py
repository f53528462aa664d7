"""A transformers model from its texts to coded pages: samples and gradients, a profile by kvtcctl, pages within their bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tqdm")

from torch_models import calibrated, letters, small

import kvtc
from kvtc import safetensors
from kvtc.adapters import transformers as adapter
from kvtc.adapters.transformers import TransformersWorker
from kvtc.calibration import capture

from conftest import binary
from samples import until

CONTEXT = 600
BOUND = 0.01


def reader(**options):
    return TransformersWorker(small("llama", max_position_embeddings=CONTEXT, **options), letters)


@pytest.fixture(scope="module")
def profile(tmp_path_factory) -> Path:
    """Calibrated on the model's own samples and gradients."""
    place = tmp_path_factory.mktemp("profile")
    out = calibrated(place, reader(), binary("kvtcctl", "KVTCCTL"))
    tensors, metadata = safetensors.read(place / "samples-00.safetensors")
    assert metadata["rope_style"] == "half_split" and metadata["rope_base"] == "10000.0" and tensors["k.1"].dtype == np.float16
    by_cache, _ = safetensors.read(place / "gradients-00.safetensors", ["k.0", "v.1"])
    assert all(np.abs(rows).max() > 0 for rows in by_cache.values())
    return out


def test_coded_pages_keep_their_bound(profile, make_daemon) -> None:
    daemon = make_daemon(**{"profiles.directory": str(profile.parent)})
    first, second = reader(), reader()
    tokens = letters("the quick brown fox jumps over the lazy dog; " * 11).input_ids[:448]
    first.prefill(tokens)
    with daemon.connect() as client:
        chosen = adapter.profile_for(client, first)
        assert chosen and chosen == adapter.profile_for(client, second)
        policy = kvtc.Policy(mode="transform", quality_kind="distortion", quality=BOUND)
        with adapter.open_session(client, first, "test", profile=chosen, policy=policy) as session:
            assert adapter.offload(session, first, tokens).stored == 7
            until(lambda: client.status()["queues"]["encode"] == 0 and client.status()["pages"]["coded"] > 0)
            assert adapter.restore(session, second, tokens) == 448
    for mine, theirs in zip(first.get_state().tensors(), second.get_state().tensors(), strict=True):
        # Sinks and window are the same bits, what is between is not.
        np.testing.assert_array_equal(mine[:4], theirs[:4])
        np.testing.assert_array_equal(mine[-128:], theirs[-128:])
        between = mine[64:320] - theirs[64:320]
        assert 0 < np.square(between).sum() < 10 * BOUND * np.square(mine[64:320]).sum()
    assert second.origin and not second.origin.is_exact
    turned = reader(rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    with daemon.connect() as client:
        assert not adapter.profile_for(client, turned), "its content is another one"


def test_rows_beyond_the_range_of_sixteen_bits_are_written_in_full() -> None:
    small_rows, large_rows = np.full((2, 3), 7, np.float32), np.full((2, 3), 1e6, np.float32)
    assert [piece.dtype for piece in capture._narrowed([small_rows, small_rows])] == [np.float16] * 2
    assert [piece.dtype for piece in capture._narrowed([small_rows, large_rows])] == [np.float32] * 2
