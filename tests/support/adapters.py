"""LoRA adapters of tiny checkpoints, with weights far from those they start with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

__all__ = ["make_adapter"]


def make_adapter(
    folder: Path, base: Path, auto_class: str, task_type: str | None, *, named: str = "", **changes: Any
) -> Path:
    """Write an adapter of `base`, as `save_pretrained` of peft does; `named` is what it calls its base."""
    model = getattr(transformers, auto_class).from_pretrained(base, **changes.pop("model", {}))
    names = ["c_attn"] if "gpt2" in str(base) else ["query", "value"]
    settings = {"r": 4, "lora_alpha": 8, "target_modules": names, "task_type": task_type, **changes}
    adapted = peft.get_peft_model(model, peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.3, generator=generator)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    if named:
        path.write_text(json.dumps({**json.loads(path.read_bytes()), "base_model_name_or_path": named}))
    return folder
