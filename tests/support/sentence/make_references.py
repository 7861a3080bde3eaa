"""Writes references.npz: what the modules of sentence-transformers itself make of drawn token embeddings.

Run it in the environment of `make interop-test`, which has the library:

    .venv-optimum/bin/python tests/support/sentence/make_references.py

`CASES` and `drawn` are also what the unit test asks hfexport with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["CASES", "REFERENCES", "WIDTH", "drawn", "expected_key"]

REFERENCES: Final = Path(__file__).with_name("references.npz")
WIDTH: Final = 4

_ONLY: Final = {"pooling_mode_mean_tokens": False}

CASES: Final[dict[str, dict[str, Any]]] = {
    **{
        mode: {"pooling": {**_ONLY, f"pooling_mode_{key}": True}}
        for mode, key in {
            **{"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "lasttoken": "lasttoken"},
            **{"mean_sqrt_len": "mean_sqrt_len_tokens", "weightedmean": "weightedmean_tokens"},
        }.items()
    },
    "no mode named": {"pooling": {}},
    "weighted mean, mean not named": {"pooling": {"pooling_mode_weightedmean_tokens": True}},
    "mean and weighted mean": {"pooling": {"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_tokens": True}},
    "cls and max": {"pooling": {**_ONLY, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}},
    "all but max": {
        "pooling": {
            **{"pooling_mode_lasttoken": True, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            **{"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_sqrt_len_tokens": True},
        }
    },
    "named mean": {"pooling": {"pooling_mode": "mean"}},
    "named weighted mean": {"pooling": {"pooling_mode": "weightedmean"}},
    "named square root": {"pooling": {"pooling_mode": "mean_sqrt_len_tokens"}},
    "prompts included or not": {"pooling": {"include_prompt": False}},
    "normalised": {"pooling": {}, "normalize": True},
    "truncated": {"pooling": {}, "normalize": True, "truncate_dim": 3},
    **{
        f"dense {name.rpartition('.')[2]}": {"pooling": {}, "dense": name}
        for name in (
            *(
                "torch.nn.modules.activation.Tanh",
                "torch.nn.modules.linear.Identity",
                "torch.nn.modules.activation.ReLU",
            ),
            *("torch.nn.modules.activation.GELU", "torch.nn.modules.activation.Sigmoid"),
        )
    },
    "dense, normalised and truncated": {
        **{"pooling": {}, "dense": "torch.nn.modules.activation.Tanh", "normalize": True, "truncate_dim": 2}
    },
    **{
        f"splade {strategy} of {activation}": {
            "splade": {"pooling_strategy": strategy, "activation_function": activation}
        }
        for strategy in ("max", "sum")
        for activation in ("relu", "log1p_relu")
    },
}
"""By name: the configs of the modules, as their files have them."""


def drawn() -> dict[str, NDArray[Any]]:
    """`tokens` (3, 5, `WIDTH`), masks (3, 5) `none`, `right` and `left`, and the weights of a dense layer."""
    rng = np.random.default_rng(11)
    kept = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    return {
        "tokens": rng.standard_normal((3, 5, WIDTH)).astype(np.float32),
        "none": np.ones_like(kept),
        "right": kept,
        "left": kept[:, ::-1].copy(),
        "weight": rng.standard_normal((3, WIDTH)).astype(np.float32),
        "bias": rng.standard_normal(3).astype(np.float32),
    }


def expected_key(case: str, padding: str) -> str:
    """The name in references.npz of what a case gives."""
    return f"{case}/{padding}"


def _embedded(case: dict[str, Any], values: dict[str, NDArray[Any]], padding: str) -> NDArray[Any]:
    import torch
    from sentence_transformers.models import Dense, Normalize, Pooling
    from sentence_transformers.sparse_encoder.models import SpladePooling
    from sentence_transformers.util import import_from_string, truncate_embeddings

    features: dict[str, Any] = {
        "token_embeddings": torch.from_numpy(values["tokens"].copy()),
        "attention_mask": torch.from_numpy(values[padding].copy()),
    }
    modules: list[torch.nn.Module] = []
    if "splade" in case:
        modules.append(SpladePooling(**case["splade"]))
    else:
        modules.append(Pooling(word_embedding_dimension=WIDTH, **case["pooling"]))
    if "dense" in case:
        dense = Dense(WIDTH, 3, activation_function=import_from_string(case["dense"])())
        dense.linear.load_state_dict({name: torch.from_numpy(values[name]) for name in ("weight", "bias")})
        modules.append(dense)
    if case.get("normalize"):
        modules.append(Normalize())
    with torch.no_grad():
        for module in modules:
            features = module.eval()(features)
    found: NDArray[Any] = truncate_embeddings(features["sentence_embedding"], case.get("truncate_dim")).numpy()
    return found


def main() -> None:
    """Write the file anew."""
    values = drawn()
    answers = {
        expected_key(name, padding): _embedded(case, values, padding)
        for name, case in CASES.items()
        for padding in ("none", "right", "left")
    }
    np.savez(REFERENCES, **answers)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
