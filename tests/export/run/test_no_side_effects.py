"""Importing and calling hfexport as a library changes nothing in the process that does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = '''
import gc, json, logging, os, resource, signal, sys, warnings
from pathlib import Path

import huggingface_hub, numpy, onnxruntime, torch, torch.onnx, transformers
import transformers.exporters.exporter_onnx
from huggingface_hub.utils import _http, are_progress_bars_disabled
from torch.onnx._internal.exporter import _core, _fx_passes
from torch.onnx._internal.fx.passes import type_promotion
from onnxscript import values
from transformers.models.bert import modeling_bert

signal.signal(signal.SIGALRM, signal.SIG_IGN)
handler = signal.signal(signal.SIGALRM, signal.SIG_IGN)

def state():
    """What of this process others see, as texts that name what differs."""
    modules = (torch, torch.nn.functional, torch.Tensor, torch.jit, torch.onnx, torch.fx, torch.fx.config, _core, _fx_passes)
    modules += (type_promotion, values.TracedOnnxFunction, modeling_bert, transformers.masking_utils, transformers.modeling_utils)
    found = {
        f"{module.__name__}.{name}": id(value)
        for module in modules
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("__")
    }
    found |= {f"variable {name}": value for name, value in os.environ.items()}
    found |= {f"signal {number}": str(signal.getsignal(number)) for number in signal.valid_signals()}
    found |= {
        f"logger {name}": (logger.level, len(logger.handlers), logger.disabled)
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and logger.level and name != "torch.__trace"  # torch.export sets it up
    }
    limits = (resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)
    return found | {
        "client factory": id(_http._GLOBAL_CLIENT_FACTORY), "download bars": are_progress_bars_disabled(),
        "stdout": id(sys.stdout), "stderr": id(sys.stderr), "stdin": id(sys.stdin), "hook": id(sys.excepthook),
        "gc": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "path": tuple(sys.path), "directory": os.getcwd(), "mask": os.umask(os.umask(0o22)),
        "filters": len(warnings.filters), "showwarning": id(warnings.showwarning),
        "limits": tuple(resource.getrlimit(limit) for limit in limits),
        "timer": signal.getitimer(signal.ITIMER_REAL), "dumpable": Path("/proc/self/maps").stat().st_uid,
        "threads": torch.get_num_threads(), "grad": torch.is_grad_enabled(), "dtype": str(torch.get_default_dtype()),
        "random": (torch.random.get_rng_state().sum().item(), float(numpy.random.get_state()[1].sum())),
        "verbosity": transformers.utils.logging.get_verbosity(), "bars": transformers.utils.logging.is_progress_bar_enabled(),
        "traces": torch.fx.config.do_not_emit_stack_traces,
    }

def differences(before):
    after = state()
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))

torch.manual_seed(1)
config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
model = transformers.BertForSequenceClassification(config).eval()
found, before = {}, state()
import hfexport, hfexport.onnx, hfexport.runtime, hfexport.torchscript
import hfexport.run.pipeline, hfexport.run.verify, hfexport.cli.main
found["importing"] = differences(before)

from hfexport.onnx import FeaturesManager, export
kind, onnx_config = FeaturesManager.check_supported_model_or_raise(model, feature="sequence-classification")
tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
export(tokenizer, model, onnx_config(model.config), 18, Path("model.onnx"))
found["hfexport.onnx.export"] = differences(before)

ids = torch.ones(2, 5, dtype=torch.int64)
traced = hfexport.torchscript.trace(model, {"input_ids": ids, "attention_mask": ids})
found["hfexport.torchscript.trace"] = differences(before)

from hfexport.hub.client import Hub, configure_process
Hub("hf_x", endpoint="http://127.0.0.1:9")
found["hfexport.hub.client.Hub"] = differences(before)
configure_process()
found["configure_process"] = differences(before)
print(json.dumps(found))
'''


def test_the_library_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    from tiny import make_checkpoint

    folder = make_checkpoint(tmp_path / "checkpoint", "bert", "sequence-classification", tokenizer=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    seen = found.pop("configure_process")
    assert seen == ["client factory", "download bars", "logger huggingface_hub"], "what command lines set is seen"
    calls = ("importing", "hfexport.onnx.export", "hfexport.torchscript.trace", "hfexport.hub.client.Hub")
    assert found == {call: [] for call in calls}
    assert (tmp_path / "model.onnx").is_file()
