"""The worker of ``kvtc.adapters.llama_cpp`` under a shorter name."""

from .adapters.llama_cpp import LlamaWorker as LlamaWorker
