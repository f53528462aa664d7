"""A model as engines other than llama.cpp read it: a GGUF file's weights, widened to float32."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from kvtc.adapters.transformers.loading import load_model, load_tokenizer
from kvtc.digests import file_digest

_FORM = "1"
"""Changes when what is written below does."""


def directory(source: Path) -> Path:
    """config.json, model.safetensors and the tokenizer of a GGUF file, kept in the cache for the next run."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvtc" / "models"
    target = cache / f"{source.stem}-{file_digest(source).hex()[:16]}-{_FORM}"
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=cache))
        try:
            _write(source, making)
            making.rename(target)
        except OSError:
            # Another process was faster.
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return target


def _write(source: Path, target: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from safetensors.torch import save_file

    model = load_model(source)
    load_tokenizer(source).save_pretrained(target)
    config = model.config
    # The weights are plain numbers now: what reads them must not look for the file's quantisation.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(model).__name__]
    config.save_pretrained(target)
    # A head that is the embedding once more would be refused: safetensors holds no tensor twice.
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
