"""Runs in the peer's environment: loads artifacts with optimum-onnx as its users do, and answers questions about them.

Reads jobs from stdin as JSON, one a line, and writes an answer for each to stdout. Imports nothing of hfexport.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import optimum.onnxruntime
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerFast, pipeline


def load(job: dict[str, Any]) -> Any:
    """The artifact as the class that the job names."""
    loader = getattr(optimum.onnxruntime, job["class"])
    return loader.from_pretrained(job["folder"], subfolder="onnx", **job.get("options", {}))


def generate(job: dict[str, Any]) -> Any:
    """Tokens of `generate`, from inputs in an .npz file."""
    with np.load(job["inputs"]) as arrays:
        inputs = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return load(job).generate(**inputs, **job["settings"]).tolist()


def classify(job: dict[str, Any]) -> Any:
    """What a pipeline says of texts."""
    # By its class: the name that newer versions of transformers write into its config is not known here.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(job["folder"])
    return pipeline(job["pipeline"], model=load(job), tokenizer=tokenizer)(job["texts"], **job["settings"])


def embed(job: dict[str, Any]) -> Any:
    """Embeddings of texts."""
    options = {"model_kwargs": {"file_name": job["file_name"]}} if "file_name" in job else {}
    model = SentenceTransformer(job["folder"], backend=job["backend"], device="cpu", **options)
    return model.encode(job["texts"]).tolist()


def run(job: dict[str, Any]) -> Any:
    """First output of one call."""
    with np.load(job["inputs"]) as arrays:
        inputs = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return load(job)(**inputs)[0].tolist()


if __name__ == "__main__":
    for line in sys.stdin:
        question = json.loads(line)
        answer = {"generate": generate, "classify": classify, "embed": embed, "run": run}[question["ask"]](question)
        print("answer " + json.dumps(answer), flush=True)
