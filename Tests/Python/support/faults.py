"""Commands that run the daemon with faults injected."""


def strace(call, fault, when):
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={when}"]
