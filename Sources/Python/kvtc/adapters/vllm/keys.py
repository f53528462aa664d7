"""The names of a request's pages: all that K and V depend on besides the weights, as vLLM has it in a request."""

from __future__ import annotations

import hashlib
import logging
import struct
from typing import Any

from ...digests import file_digest
from ...keys import Span, page_keys
from ..weights import model_directory

log = logging.getLogger("kvtc")


class NoName(ValueError):
    """What a request was computed from cannot be named; the message says what of it."""


class Adapters:
    """LoRA adapters by what their files hold: names, numbers and paths are used anew for others."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, str, str], bytes] = {}

    def digest(self, request: Any) -> bytes:
        """Of a request's adapter, which the engine loads once: read at its first use. Empty without one. Raises NoName."""
        if request is None:
            return b""
        known = (request.lora_int_id, request.lora_name, request.lora_path)
        if known not in self._digests or request.load_inplace:
            self._digests[known] = self._read(request.lora_path)
        return self._digests[known]

    @staticmethod
    def _read(path: str) -> bytes:
        """Weights, and the configuration, which has the scale."""
        try:
            folder = model_directory(path)
            files = sorted(file for form in ("adapter_*", "*.safetensors") for file in folder.glob(form) if file.is_file())
            parts = [file.name.encode() + b"\0" + file_digest(file) for file in dict.fromkeys(files)]
        except (OSError, ValueError) as error:
            raise NoName(f"the LoRA adapter {path} cannot be read: {error}") from None
        if not parts:
            raise NoName(f"{path} holds no LoRA adapter that is known as such")
        return hashlib.sha256(b"".join(struct.pack("<I", len(part)) + part for part in parts)).digest()


class RequestKeys:
    """The keys of a request's full pages, computed as its tokens come. Raises NoName."""

    def __init__(self, request: Any, page_tokens: int, adapters: Adapters) -> None:
        if request.prompt_embeds is not None:
            raise NoName("embeddings stand in for tokens")
        self._request, self._page_tokens = request, page_tokens
        self._salt = salt(adapters.digest(request.lora_request), request.cache_salt)
        self._keys: list[bytes] = []

    def upto(self, tokens: int) -> list[bytes]:
        """Of all full pages among the first tokens."""
        done = len(self._keys) * self._page_tokens
        if tokens - done >= self._page_tokens:
            ids = self._request.all_token_ids[done:tokens]
            inputs = [span for span in self._inputs(done) if span.end > 0 and span.begin < len(ids)]
            if self._keys:
                self._keys += page_keys(ids, self._page_tokens, parent=self._keys[-1], inputs=inputs)
            else:
                self._keys += page_keys(ids, self._page_tokens, salt=self._salt, inputs=inputs)
        return self._keys[: tokens // self._page_tokens]

    def _inputs(self, start: int) -> list[Span]:
        """Images and the like. vLLM names each by a hash of its content and of how it was processed."""
        found = []
        for feature in self._request.mm_features:
            place, name = feature.mm_position, hashlib.sha256(b"vllm\0" + str(feature.identifier).encode()).digest()
            found.append(Span(place.offset - start, place.offset - start + place.length, name))
        return found


def salt(adapter: bytes, cache_salt: str | None) -> bytes:
    """What keeps requests of one engine apart: empty for those with neither adapter nor salt."""
    if not adapter and not cache_salt:
        return b""
    text = (cache_salt or "").encode()
    return struct.pack("<II", len(adapter), len(text)) + adapter + text
