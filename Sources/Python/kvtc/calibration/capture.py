"""Calibration samples: what a real model's cache holds after reading real text.

python -m kvtc.calibration.capture --out samples.safetensors [--tokens N] [--held-out COUNT]

Writes shards `samples-00.safetensors`, `samples-01…` (or one file per document with --held-out): `k.<layer>` and `v.<layer>`
(or latents, `c.<layer>`) F16 [tokens, heads, head_dim] as the engine keeps them, K after RoPE (F32 where F16 has not the
range); `positions` I32 [tokens]; `rope.<layer>` F32 [pairs], radians a position, where one base does not say it all. The first four positions of
every context are left out of calibration shards: sinks are outliers that a profile must not spend components on.

Beforehand it says what will be written, how long that takes and, where the tokens are few for the model, what it costs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from .. import safetensors
from ..adapters.engine import EngineError
from .corpus import Corpus, add_source_options, at_least, chosen_corpus, demo
from .progress import bar, complain, say
from .readers import Reader, ReaderState, open_reader
from .texts import Document, MissingTexts

CONTEXT_TOKENS = 2048
SINKS = 4
HELD_OUT_TOKENS = 2304
CONTEXTS_PER_SHARD = 4
FEWEST_TOKENS = 1024
DEFAULT_TOKENS = 57_344
_TRIAL_TOKENS = 256
_LARGEST_F16 = 65504


def metadata(worker: Reader) -> dict[str, str]:
    """What calibration must know to undo RoPE, and whose cache it is."""
    rope = worker.geometry.rope
    named = {} if rope.base is None else {"rope_base": repr(rope.base), "rope_dims": str(rope.dims)}
    offset = {"rope_offset": str(rope.offset)} if rope.offset else {}
    own = {"format": "kvtc-samples-1", "model": worker.name, "weights": worker.weights.hex(), "rope_style": rope.style}
    return own | named | offset


def rope_tensors(worker: Reader) -> dict[str, list[np.ndarray]]:
    """The frequencies of every layer, where no base says them."""
    rope = worker.geometry.rope
    if rope.base is not None:
        return {}
    return {f"rope.{layer}": [np.asarray(table, "<f4")] for layer, table in enumerate(rope.frequencies)}


def tensor_names(worker: Reader) -> list[str]:
    """The first part of the names of the state's keys, and values where it has some: `k` and `v`, or `c` for latents."""
    return [{"key": "k", "value": "v", "latent": "c"}[role] for role in worker.geometry.roles]


def sample_tensors(worker: Reader, states: list[ReaderState], skip: int) -> dict[str, list[np.ndarray]]:
    """The tensors of a shard: every state's rows but the first `skip`."""
    tensors = rope_tensors(worker)
    for layer in range(worker.geometry.layers):
        for letter, role in zip(tensor_names(worker), ("keys", "values"), strict=False):
            rows = _narrowed([getattr(state, role)[layer][skip:] for state in states])
            tensors[f"{letter}.{layer}"] = [piece.reshape(len(piece), worker.geometry.heads, -1) for piece in rows]
    tensors["positions"] = [state.positions[skip:].astype("<i4") for state in states]
    return tensors


def _narrowed(rows: list[np.ndarray]) -> list[np.ndarray]:
    """As f16, whose precision is far beyond a profile's; as f32 where one has not the range."""
    if all(np.abs(piece).max(initial=0) <= _LARGEST_F16 for piece in rows):
        return [piece.astype("<f2", copy=False) for piece in rows]
    return [piece.astype("<f4", copy=False) for piece in rows]


def capture_calibration(worker: Reader, tokens: int, out: Path, corpus: Corpus | None = None) -> list[Path]:
    """Prefills calibration texts and writes shards beside `out`; returns their paths in order.

    Up to `tokens` tokens in contexts of up to 2048; fewer where the corpus (by default the demo's) has no more.
    """
    documents = (corpus or demo()).calibration(-(-tokens // CONTEXT_TOKENS))
    if hint := too_few(tokens, worker.geometry.token_bytes // 2):
        say(f"warning: {hint}")
    _announce(worker, documents, tokens, out)
    paths: list[Path] = []
    pending: list[ReaderState] = []
    left = tokens
    with bar("reading calibration texts", tokens, "tokens") as progress:
        for document in documents:
            if left <= SINKS:
                break
            context = worker.tokenize(document.text)[: min(CONTEXT_TOKENS, worker.context, left)]
            if len(context) <= SINKS:
                continue
            worker.clear()
            worker.prefill(context, progress.update)
            pending.append(worker.get_state())
            left -= len(context)
            if len(pending) == CONTEXTS_PER_SHARD:
                paths.append(_write_shard(worker, pending, out, len(paths)))
                pending = []
    if pending:
        paths.append(_write_shard(worker, pending, out, len(paths)))
    if tokens - left < FEWEST_TOKENS:
        raise MissingTexts(f"{tokens - left} tokens of text to calibrate on; {FEWEST_TOKENS} are the least, 50000 make a good profile")
    return paths


def too_few(tokens: int, elements: int) -> str:
    """What so few tokens for rows of so many elements cost a profile; empty where they are enough."""
    if tokens >= 2 * elements:
        return ""
    return (
        f"{tokens} tokens for {elements} elements a token, fewer than two an element: what calibration has not seen is coded badly "
        f"(SmolLM2-135M, 16 times: a third of a token an element gave 2.5 times the distortion of five). {2 * elements} or more are better"
    )


def _announce(worker: Reader, documents: list[Document], tokens: int, out: Path) -> None:
    """Says how much will be written and, from a short trial, how long it takes; refuses what has no room."""
    size = tokens * worker.geometry.token_bytes
    room = shutil.disk_usage(out.absolute().parent).free
    if size > room:
        raise OSError(f"{tokens} tokens take {size / 1e6:.0f} MB, and {out.absolute().parent} has {room / 1e6:.0f} MB left: fewer --tokens?")
    trial = worker.tokenize(documents[0].text)[: min(_TRIAL_TOKENS, worker.context)] if documents else []
    if not trial:
        return
    begin = time.perf_counter()
    worker.clear()
    worker.prefill(trial)
    minutes = (time.perf_counter() - begin) / len(trial) * tokens / 60
    # The first tokens of a context have the least to attend to.
    say(
        f"{tokens} tokens: {size / 1e6:.0f} MB beside {out}, {max(minutes, 1):.0f} minutes or some more; "
        f"one context of {CONTEXT_TOKENS} tokens is in memory at a time, {CONTEXTS_PER_SHARD} before they are written"
    )


def shard_path(out: Path, number: int) -> Path:
    """`samples-07.safetensors` of `samples.safetensors`."""
    return out.with_name(f"{out.stem}-{number:02}{out.suffix}")


def _write_shard(worker: Reader, states: list[ReaderState], out: Path, number: int) -> Path:
    path = shard_path(out, number)
    safetensors.write(path, sample_tensors(worker, states, SINKS), metadata(worker))
    return path


def capture_held_out(
    worker: Reader, count: int, out: Path, corpus: Corpus | None = None, limit: int = HELD_OUT_TOKENS
) -> list[Path]:
    """One file for each of `count` documents that calibration does not read, of up to `limit` tokens: all positions, and the
    token ids as `tokens`."""
    documents = (corpus or demo()).evaluation(count)[:count]
    paths: list[Path] = []
    with bar("reading held-out texts", len(documents) * limit, "tokens") as progress:
        for index, document in enumerate(documents):
            tokens = worker.tokenize(document.text)[: min(limit, worker.context)]
            worker.clear()
            worker.prefill(tokens, progress.update)
            tensors = sample_tensors(worker, [worker.get_state()], 0)
            tensors["tokens"] = [np.array(tokens, "<i4")]
            path = shard_path(out, index)
            safetensors.write(path, tensors, metadata(worker) | {"document": document.name})
            paths.append(path)
    return paths


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kvtc.calibration.capture", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="shards are named after this: NAME-00.safetensors …")
    parser.add_argument(
        "--tokens",
        type=at_least(1),
        help=f"calibration tokens (default: {DEFAULT_TOKENS}, least: {FEWEST_TOKENS}); with --held-out, the most of each document "
        f"(default: {HELD_OUT_TOKENS})",
    )
    parser.add_argument("--held-out", type=at_least(1), metavar="COUNT", help="write so many held-out documents instead")
    add_source_options(parser)
    options = parser.parse_args(arguments)
    tokens = options.tokens or (HELD_OUT_TOKENS if options.held_out else DEFAULT_TOKENS)
    if not options.held_out and tokens < FEWEST_TOKENS:
        parser.error(f"argument --tokens: {tokens}; a calibration takes at least {FEWEST_TOKENS}")
    try:
        corpus = chosen_corpus(options)
        # Room for the whole of a document or context, as far as the model was trained for it.
        context = tokens if options.held_out else CONTEXT_TOKENS
        with open_reader(options.model, context=context, threads=options.threads) as worker:
            if options.held_out:
                paths = capture_held_out(worker, options.held_out, options.out, corpus, tokens)
            else:
                paths = capture_calibration(worker, tokens, options.out, corpus)
    except (EngineError, MissingTexts, OSError) as error:
        complain("kvtc.calibration.capture", error)
        return 1
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
