"""Other users of the machine, for tests that run as root."""

import json
import os

NOBODY = 65534


def as_user(user, work, groups=()):
    """What ``work`` returns (as JSON can say it) when another user runs it, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups(groups)
            os.setgid(user)
            os.setuid(user)
            os.write(writing, json.dumps(work()).encode())
            status = 0
        except BaseException as error:
            os.write(writing, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        result = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, result
    return json.loads(result)
