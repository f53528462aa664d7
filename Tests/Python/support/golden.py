"""The golden blocks: what they are, and the rows that they must decode to. Imported before `kvtc.gpu`: Triton's interpreter is to run it."""

import base64
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import torch

os.environ["TRITON_INTERPRET"] = "1"

from kvtc.gpu import Decoder, Profile
from kvtc.protocol.geometry import Element

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(path.name for path in (ROOT / "Tests" / "Golden").glob("blocks-*.json"))
TOKENS = 8


@cache
def content(name):
    """The profile, and by name of its case each block, of both versions, and its rows of f16 as they lie in a row: [tokens, elements]."""
    stored = json.loads((ROOT / "Tests" / "Golden" / name).read_text())
    second = json.loads((ROOT / "Tests" / "Golden" / "sections-2.json").read_text())
    cases = {}
    for case in stored["cases"] + [case for case in second if f"blocks-{case['format']}.json" == name]:
        rows = np.frombuffer(base64.b64decode(case["page"]), np.int16)
        cases[case["name"]] = (base64.b64decode(case["block"]), rows.reshape(TOKENS, -1))
    return Profile(base64.b64decode(stored["profile"])), cases


@cache
def decoder(name, element=Element.F16, product="int8", rows=1024):
    return Decoder(content(name)[0], "cpu", element, product=product, rows=rows)


def empty_cache(profile, slots=16, block=4, dtype=torch.float16, fill=0.0):
    """By layer and role: [blocks, heads, tokens, head_dim], as engines have them in one piece [blocks, tokens, heads, head_dim]."""
    return {
        (tensor.layer, tensor.role): torch.full((slots // block, block, tensor.heads, tensor.head_dim), fill, dtype=dtype).transpose(1, 2)
        for tensor in profile.geometry.tensors
    }


def rows_in(profile, cache, slots):
    """The bits at the slots, [slots, elements of a row]."""
    parts = []
    for tensor in profile.geometry.tensors:
        view = cache[tensor.layer, tensor.role]
        view = view.view({2: torch.int16, 4: torch.int32, 1: torch.int8}[view.element_size()])
        parts.append(view[np.asarray(slots) // view.shape[2], :, np.asarray(slots) % view.shape[2]].reshape(len(slots), -1).numpy())
    return np.concatenate(parts, 1)
