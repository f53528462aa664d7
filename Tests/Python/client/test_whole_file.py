"""A file is replaced as a whole, and nothing but a file is."""

import os
import threading

import pytest

from kvtc.whole_file import replacing


def test_a_file_is_replaced_at_the_end_or_stays(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as partial:
        partial.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("second")
        raise RuntimeError
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["file"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with replacing(tmp_path / "link") as partial:
        partial.write_text("content")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "content"


def test_a_pipe_is_written_to(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with replacing(pipe) as place:
        place.write_text("content")
    reader.join()
    assert read == ["content"] and os.listdir(tmp_path) == ["pipe"]
