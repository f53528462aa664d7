"""The llama.cpp adapter against the real daemon."""

from fake_worker import FakeWorker, filled_worker

from kvtc import llama_cpp

TOKENS = list(range(5000, 5500))


def test_a_sequence_survives_the_daemons_restart_bit_exactly(make_daemon) -> None:
    daemon, first, second = make_daemon(), filled_worker(500), FakeWorker()
    with daemon.connect() as client, llama_cpp.open_session(client, first, "first") as session:
        done = llama_cpp.offload(session, first, TOKENS)
        assert (done.pages, done.stored) == (7, 7)
        assert llama_cpp.offload(session, first, TOKENS).present == 7
        client.flush()
    daemon.restart()
    with daemon.connect() as client, llama_cpp.open_session(client, second, "second") as session:
        assert llama_cpp.restore(session, second, TOKENS) == 448 == second.position
        for mine, theirs in zip(second.get_state().tensors(), first.get_state().tensors(), strict=True):
            assert mine.tobytes() == theirs[:448].tobytes()
        assert llama_cpp.resume(session, second, TOKENS) == "logits" and second.prefilled == TOKENS[448:]


def test_pages_travel_through_the_socket_too(make_daemon) -> None:
    daemon, first, second = make_daemon(), filled_worker(500), FakeWorker()
    with daemon.connect(arena_bytes=0) as client, llama_cpp.open_session(client, first, "inline") as session:
        llama_cpp.offload(session, first, TOKENS)
        assert llama_cpp.restore(session, second, TOKENS[:200]) == 192
        for mine, theirs in zip(second.get_state().tensors(), first.get_state().tensors(), strict=True):
            assert mine.tobytes() == theirs[:192].tobytes()
