"""Which files a model is made of, and their content as one digest: a name outlives an update of what it names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..digests import file_digest

_FORMS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
"""In the order in which engines prefer them, where a directory has several."""


def model_directory(model: str, revision: str | None = None) -> Path:
    """Where the files of a model lie that an engine names by a directory, a file, or a name on the hub that was downloaded before.

    Raises ValueError with what to do where they are not on this machine.
    """
    path = Path(model)
    if path.exists():
        return path
    try:
        hub: Any = __import__("huggingface_hub")
        return Path(hub.snapshot_download(model, revision=revision, local_files_only=True))
    except Exception as error:
        raise ValueError(f"the weights of {model!r} are not on this machine: name their directory by the option 'model'") from error


def model_files(path: Path) -> list[Path]:
    """The files that hold the weights. Raises ValueError where there are none."""
    if path.is_file():
        return [path]
    for form in _FORMS:
        if files := sorted(path.glob(form)):
            return files
    raise ValueError(f"{path} holds no weights that are known as such ({', '.join(_FORMS)})")


def weights_digest(files: Sequence[Path]) -> bytes:
    """32 bytes: of one file its SHA-256, which is what a profile names its weights by; of several that of theirs, in any order.

    Raises ValueError for what cannot be read.
    """
    try:
        digests = sorted(file_digest(file) for file in files)
    except OSError as error:
        raise ValueError(f"cannot read the weights: {error}") from None
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
