"""Add the pooling, dense layers and normalisation of sentence-transformers to a model, as one module.

The Neuron worker copies this file into an interpreter without hfexport: it must run on Python 3.8 and torch 1.13.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    from hfexport.export_config.sentence import SentenceModules

__all__ = ["SentenceModel"]


class SentenceModel(torch.nn.Module):
    """Return `token_embeddings` (batch, sequence, hidden), except for SPLADE, and `sentence_embedding` (batch, size).

    Args:
        transformer: model that returns `last_hidden_state`, or `logits` for SPLADE.
        modules: modules after the transformer.
    """

    def __init__(self, transformer: torch.nn.Module, modules: SentenceModules) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = modules.pooling
        self.normalize = modules.normalize
        self.truncate_dim = modules.truncate_dim
        self.splade = modules.splade
        self.dense = torch.nn.ModuleList()
        dtype = next(transformer.parameters()).dtype
        for layer in modules.dense:
            weights = load_file(layer.file)
            weight, bias = weights["linear.weight"], weights.get("linear.bias")
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
            linear.load_state_dict({"weight": weight, **({} if bias is None else {"bias": bias})})
            self.dense.append(torch.nn.Sequential(linear.to(dtype), getattr(torch.nn, layer.activation)()))
        self.eval()

    def forward(self, **inputs: Any) -> dict[str, torch.Tensor]:
        if "use_cache" in inspect.signature(self.transformer.forward).parameters:
            inputs["use_cache"] = False
        given = self.transformer(**inputs)
        mask = inputs["attention_mask"]
        if self.splade is not None:
            return {"sentence_embedding": self._truncated(_splade(given.logits, mask, self.splade))}
        tokens: torch.Tensor = given.last_hidden_state
        pooled = torch.cat([_pool(mode, tokens, mask) for mode in self.pooling], dim=1)
        for layer in self.dense:
            pooled = layer(pooled)
        if self.normalize:
            pooled = torch.nn.functional.normalize(pooled, p=2.0, dim=1)
        return {"token_embeddings": tokens, "sentence_embedding": self._truncated(pooled)}

    def _truncated(self, pooled: torch.Tensor) -> torch.Tensor:
        return pooled if self.truncate_dim is None else pooled[:, : self.truncate_dim]


def _splade(logits: torch.Tensor, mask: torch.Tensor, splade: Any) -> torch.Tensor:
    """Pool `logits` (batch, sequence, vocabulary) where `mask` is 1 to (batch, vocabulary)."""
    shown = torch.where(mask.unsqueeze(-1) == 0, torch.zeros_like(logits), logits)
    weights = torch.log1p(torch.relu(shown))
    if splade.log_twice:
        weights = torch.log1p(weights)
    return weights.amax(dim=1) if splade.strategy == "max" else weights.sum(dim=1)


def _pool(mode: str, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Pool `tokens` (batch, sequence, hidden) where `mask` (batch, sequence) is 1 to (batch, size)."""
    if mode == "cls":
        return tokens[:, 0]
    shown = mask.unsqueeze(-1).to(tokens.dtype)
    if mode == "max":
        lowest = torch.finfo(tokens.dtype).min
        return tokens.masked_fill(mask.unsqueeze(-1) == 0, lowest).amax(dim=1)
    if mode == "lasttoken":
        places = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask == 0, -1, places).amax(dim=1, keepdim=True)
        return (tokens * (places == last).unsqueeze(-1).to(tokens.dtype)).sum(dim=1)
    if mode == "weightedmean":
        shown = shown * torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=tokens.dtype)[None, :, None]
    count = shown.sum(dim=1).clamp(min=1e-9)
    return (tokens * shown).sum(dim=1) / (count.sqrt() if mode == "mean_sqrt_len" else count)
