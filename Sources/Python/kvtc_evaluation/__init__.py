"""What kvtcd does with a real model on this machine: a demonstration, what it costs in quality, and how fast it is.

`deploy/demo`, `deploy/fleet`, `deploy/evaluate` and `deploy/bench` set up and run these programs. No worker needs them.
"""
