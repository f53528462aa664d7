"""The worker on the second machine: it knows a conversation's text, and finds its cache with its own kvtcd.

Reads a request (JSON) from standard input, writes one JSON line per document to standard output.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration.texts import held_out_documents
from kvtc.client import Client
from kvtc.session import Session

from ..daemon import PATIENCE
from ..demo.score import PREFIX_TOKENS
from ..demo.worker import restore_document


def main() -> int:
    request = json.load(sys.stdin)
    documents = held_out_documents(request["documents"])
    with LlamaWorker(threads=request["threads"]) as worker:
        worker.tokenize(documents[0].text)
        # What the model is read from may be another user's.
        if os.geteuid() == 0 and request["user"] != 0:
            os.setgroups([])
            os.setgid(request["user"])
            os.setuid(request["user"])
        with Client(request["socket"]) as client:
            if request["profile"]:
                with llama_cpp.open_session(client, worker, "fleet", profile=request["profile"]) as session:
                    for document in documents:
                        print(json.dumps(restore_document(session, worker, document, 0)), flush=True)
            else:
                tokens = worker.tokenize(documents[0].text)[:PREFIX_TOKENS]
                with llama_cpp.open_session(client, worker, "fleet-lossless") as session:
                    print(json.dumps(goes_on(session, worker, tokens, request["generate"])), flush=True)
    return 0


def goes_on(session: Session, worker: LlamaWorker, tokens: Sequence[int], count: int) -> dict[str, Any]:
    """What state an exact cache gives back, and the tokens that follow it: the last ones computed again, as a next turn begins."""
    worker.clear()
    restored = llama_cpp.restore(session, worker, tokens, deadline=PATIENCE)
    digest = hashlib.sha256(worker.get_state().to_bytes()).hexdigest() if restored else ""
    worker.clear()
    logits = llama_cpp.resume(session, worker, tokens, deadline=PATIENCE, always_restore=True)
    following = [int(token) for token in worker.generate(logits, count)]
    return {"restored": restored, "state": digest, "following": following, "text": worker.text(following)}


if __name__ == "__main__":
    sys.exit(main())
