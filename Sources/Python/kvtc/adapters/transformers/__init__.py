"""A transformers model's cache, kept by kvtcd."""

from .worker import TransformersWorker

__all__ = ["TransformersWorker"]
