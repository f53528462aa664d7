"""vLLM in processes of its own, as `vllm_engine` has it run."""
