"""Models and tokenizers from files of this machine, to be computed with and not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def source(place: Path) -> dict[str, Any]:
    """What names a directory, or a GGUF file, to transformers. Nothing is looked for elsewhere."""
    if place.is_file():
        return {"pretrained_model_name_or_path": str(place.parent), "gguf_file": place.name, "local_files_only": True}
    return {"pretrained_model_name_or_path": str(place), "local_files_only": True}


def load_model(place: Path, dtype: str = "float32", threads: int | None = None, **options: Any) -> Any:
    """A decoder with its weights in that type; those of a GGUF file are widened. `threads` are the process's."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(**source(place), dtype=getattr(torch, dtype), **options).eval()
    model.requires_grad_(False)
    model.name_or_path = str(place)
    return model


def load_tokenizer(place: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(**source(place))
