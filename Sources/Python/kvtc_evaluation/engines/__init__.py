"""Real engines on real weights with a real daemon: what each module's `run` did and saw is a `Report`."""
