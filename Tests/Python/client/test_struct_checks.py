"""What callers fill in refuses, by type or value, what it cannot mean, and names the field."""

import numpy as np
import pytest

from kvtc import Element, Geometry, Layout, Mode, Policy, QualityKind, Range, Role, RotaryStyle, Tensor
from kvtc.protocol import messages
from kvtc.protocol.errors import WireError

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Policy(mode="foo"), ValueError, "mode must be one of lossless, transform, kvtc, quant8, quant4"),
        (lambda: Policy(mode="transfrom"), ValueError, "mode"),
        (lambda: Policy(mode=255), ValueError, "mode"),
        (lambda: Policy(mode=None), TypeError, "mode"),
        (lambda: Policy(mode=2.0), TypeError, "mode"),
        (lambda: Policy(quality_kind="size"), ValueError, "quality_kind must be one of ratio, distortion"),
        (lambda: Policy(quality="16"), TypeError, "quality"),
        (lambda: Policy(quality=-1), ValueError, "quality"),
        (lambda: Policy(quality=NAN), ValueError, "quality"),
        (lambda: Policy(quality=INFINITY), ValueError, "quality"),
        (lambda: Policy(quality=1e39), ValueError, "quality"),
        (lambda: Policy(quality=None), TypeError, "quality"),
        (lambda: Policy(quality=True), TypeError, "quality"),
        (lambda: Policy(sink=-1), ValueError, "sink"),
        (lambda: Policy(sink=2**32), ValueError, "sink"),
        (lambda: Policy(sink="4"), TypeError, "sink"),
        (lambda: Policy(window=1.5), TypeError, "window"),
        (lambda: Policy(window=True), TypeError, "window"),
        (lambda: Policy(priority=256), ValueError, "priority must be from 0 to 255"),
        (lambda: Policy(ttl_seconds=-5), ValueError, "ttl_seconds"),
        (lambda: Policy(ttl_seconds=None), TypeError, "ttl_seconds"),
        (lambda: Policy(protected="0-4"), TypeError, "protected"),
        (lambda: Policy(protected=5), TypeError, "protected"),
        (lambda: Policy(protected=[5]), TypeError, r"protected\[0\] must be a Range"),
        (lambda: Policy(protected=[(0, 4), (9, 3)]), ValueError, r"protected\[1\]: end must be above begin \(9\)"),
        (lambda: Policy(protected=[(3, 3)]), ValueError, r"protected\[0\]: end must be above begin \(3\), not 3"),
        (lambda: Range(3, 3), ValueError, r"end must be above begin"),
        (lambda: Policy(near=0.0001), ValueError, "near must be from 0.0005 and below 1, not 0.0001"),
        (lambda: Policy(distortion_limit=0.0004), ValueError, "distortion_limit must be from 0.0005 and below 1"),
        (lambda: Policy(protected=[(0, "4")]), TypeError, "end"),
        (lambda: Policy(near=0), ValueError, "near must be from 0.0005 and below 1"),
        (lambda: Policy(near="0.1"), TypeError, "near"),
        (lambda: Policy(distortion_limit=1.0), ValueError, "distortion_limit"),
        (lambda: Range(-1, 4), ValueError, "begin"),
        (lambda: Layout("f8"), ValueError, "element must be one of f16, bf16, f32, e4m3, e5m2"),
        (lambda: Layout(flags=256), ValueError, "flags"),
        (lambda: Layout(order=9), ValueError, "order"),
        (lambda: Layout(grouping="x"), ValueError, "grouping"),
        (lambda: Tensor(-1, Role.KEY), ValueError, "layer"),
        (lambda: Tensor(0, "query"), ValueError, "role must be one of key, value, latent"),
        (lambda: Tensor(0, Role.KEY, heads=65536), ValueError, "heads"),
        (lambda: Tensor(0, Role.KEY, head_dim=1.5), TypeError, "head_dim"),
        (lambda: Geometry([None]), TypeError, r"tensors\[0\]"),
        (lambda: Geometry(5), TypeError, "tensors"),
        (lambda: Geometry([], [[1.0, "2"]]), TypeError, r"rope_tables\[0\]\[1\]"),
        (lambda: Geometry([], [[NAN]]), ValueError, r"rope_tables\[0\]\[0\]"),
        (lambda: Geometry.from_heads("2", 1, 8), TypeError, "layers"),
        (lambda: Geometry.from_heads(0, 1, 8), ValueError, "layers"),
        (lambda: Geometry.from_heads(2, 0, 8), ValueError, "kv_heads"),
        (lambda: Geometry.from_heads(2, 1, -8), ValueError, "head_dim"),
        (lambda: Geometry.from_heads(2, 1, 8, value_dim=0), ValueError, "value_dim"),
        (lambda: Geometry.from_heads(2, 1, 8, rotary_dims=3), ValueError, "rotary_dims"),
        (lambda: Geometry.from_heads(2, 1, 8, rotary_dims=10), ValueError, "rotary_dims"),
        (lambda: Geometry.from_heads(2, 1, 8, rope_base=-1), ValueError, "rope_base"),
        (lambda: Geometry.from_heads(2, 1, 8, rope_base="1e4"), TypeError, "rope_base"),
        (lambda: Geometry.from_heads(2, 1, 8, rope_style="spiral"), ValueError, "rope_style must be one of none"),
        (lambda: Geometry.from_heads(2, 1, 8, first_layer=65535), ValueError, "layers"),
        (lambda: Geometry.from_latents(2, 0, 8), ValueError, "latent_dim"),
        (lambda: Geometry.from_latents(2, 32, 7), ValueError, "rotary_dims"),
    ],
)
def test_what_means_nothing_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_names_numbers_and_numpys_types_are_taken_for_what_they_are():
    policy = Policy(mode="quant8", quality_kind="distortion", quality=np.float32(0.5), sink=np.int64(7), protected=((1, 2), Range(3, 4)))
    assert (policy.mode, policy.quality_kind, policy.quality, policy.sink) == (Mode.QUANT8, QualityKind.DISTORTION, 0.5, 7)
    assert policy.protected == [Range(1, 2), Range(3, 4)] and Policy(mode=2).mode is Mode.TRANSFORM
    assert Layout("bf16").element is Element.BF16
    assert Geometry.from_heads(1, 1, 8, rope_style="interleaved").tensors[0].rotary_style is RotaryStyle.INTERLEAVED


def test_a_field_that_is_set_later_is_checked_too_and_a_refused_value_changes_nothing():
    policy = Policy(near=0.01)
    for name, value in [("mode", "foo"), ("quality", -1), ("near", 2), ("pin", "yes"), ("keep_outliers", 1), ("sink", None)]:
        with pytest.raises((TypeError, ValueError), match=name):
            setattr(policy, name, value)
    assert policy == Policy(near=0.01)
    policy.near, policy.pin = None, True
    assert policy.flags == 1 and policy.pin


def test_what_comes_over_the_wire_is_held_to_the_same():
    body = bytearray(messages.SetPolicy(1, Policy(protected=[(1, 2)])).encode())
    body[-4:] = bytes(4)
    with pytest.raises(WireError, match="end must be above begin"):
        messages.SetPolicy.decode(body)
