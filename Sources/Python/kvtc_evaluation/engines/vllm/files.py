"""Models and adapters that differ from one another in their numbers only, as files that vLLM loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any


def make_adapter(model: Path, target: Path, seed: int) -> Path:
    """A LoRA adapter of rank 8 for the attention of a Llama, random and strong enough to change what is said."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((model / "config.json").read_text())
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    source, tensors = torch.Generator().manual_seed(seed), {}
    for layer in range(config["num_hidden_layers"]):
        for name, out in (("q_proj", heads * head), ("v_proj", config["num_key_value_heads"] * head)):
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{place}.lora_A.weight"] = torch.randn(8, width, generator=source) * width**-0.5
            tensors[f"{place}.lora_B.weight"] = torch.randn(out, 8, generator=source) * 0.3
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / "adapter_model.safetensors")
    adapter = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    (target / "adapter_config.json").write_text(json.dumps(adapter))
    return target


def make_other(model: Path, target: Path) -> Path:
    """The same model with other numbers in one matrix."""
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True)
    for file in model.iterdir():
        if file.name != "model.safetensors":
            shutil.copy(file, target / file.name)
    tensors = load_file(model / "model.safetensors")
    name = "model.layers.0.self_attn.k_proj.weight"
    tensors[name] = tensors[name] * 1.01
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def make_small(target: Path) -> Path:
    """A Llama of two heads of K and V, which two ranks can share, with random weights."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=1024, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=8192, initializer_range=0.2, tie_word_embeddings=True,
    )
    return _make(target, config, transformers.LlamaForCausalLM)


def make_hybrid(target: Path) -> Path:
    """Three layers with a state (gated delta rule) and one of attention, with random weights."""
    import transformers

    config = transformers.Qwen3NextConfig(
        vocab_size=1024, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, head_dim=64, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=128,
        linear_value_head_dim=128, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
        shared_expert_intermediate_size=64, mlp_only_layers=[], max_position_embeddings=8192, initializer_range=0.2,
        tie_word_embeddings=False,
    )
    return _make(target, config, transformers.Qwen3NextForCausalLM)


def _make(target: Path, config: Any, architecture: Any) -> Path:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    model = architecture(config)
    config.architectures = [architecture.__name__]
    target.mkdir(parents=True)
    config.save_pretrained(target)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def write_prompts(model: Path, target: Path, count: int, tokens: int) -> Path:
    """So many prompts of English prose, as a list of lists of token ids. Raises MissingTexts where Debian's manuals are not installed."""
    import transformers

    from kvtc.calibration.texts import held_out_documents

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
    documents = held_out_documents(2 * count)
    # One document is half a prompt, or more.
    texts = ["\n\n".join(document.text for document in documents[2 * index : 2 * index + 2]) for index in range(count)]
    prompts = [tokenizer.encode(text)[:tokens] for text in texts]
    if any(len(prompt) < tokens for prompt in prompts):
        raise ValueError(f"the texts are shorter than {tokens} tokens")
    target.write_text(json.dumps(prompts))
    return target
