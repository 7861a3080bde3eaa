"""DeBERTa-v2 without shared keys: the position projections have other names in PyTorch."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["DEBERTA_V2"]

DEBERTA_V2 = Rules(
    model_types=("deberta-v2",),
    renamed=((r"\.self\.pos_proj\.", ".self.pos_key_proj."), (r"\.self\.pos_q_proj\.", ".self.pos_query_proj.")),
)
