"""The benchmark: restoring a context against computing it again."""
