"""Load models with this interpreter's transformers, and wrap them as modules that take and return flat tensors."""

from __future__ import annotations

from typing import Any, Mapping

from . import Failure
from .files import first_line, unless


def load(job: Mapping[str, Any]) -> Any:
    """Load the checkpoint in fp32 with eager attention, from safetensors only, as `job["loader"]` says."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    loader = job["loader"]
    auto_class = getattr(transformers, loader["auto_class"])
    kwargs = dict(loader["model_kwargs"])
    try:
        if loader["bare"] and _takes_pooling(auto_class, job["checkpoint"]):
            kwargs["add_pooling_layer"] = False
        model, info = auto_class.from_pretrained(
            job["checkpoint"],
            torch_dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **kwargs,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise Failure(
            "checkpoint_unreadable",
            "transformers {} cannot load the checkpoint as {}: {}".format(
                transformers.__version__, loader["auto_class"], first_line(error)
            ),
        ) from error
    computed = {name for name, buffer in model.named_buffers() if not buffer.is_floating_point()}
    # Integer buffers such as swin's index tables are computed by the model; newer checkpoints do not store them.
    missing = sorted(set(info["missing_keys"]) - computed)
    if missing or info["mismatched_keys"]:
        missing = missing or sorted(str(entry[0]) for entry in info["mismatched_keys"])
        raise Failure(
            "weights_missing",
            "transformers {} does not find these weights: {}".format(transformers.__version__, ", ".join(missing[:5])),
        )
    model = model.eval()
    return model if loader["sentence"] is None else _pooled(model, loader["sentence"])


def _pooled(model: Any, sentence: Mapping[str, Any]) -> Any:
    """Add the modules of a sentence-transformers folder behind the model, using hfexport's own code for them.

    Args:
        model: model that returns hidden states.
        sentence: `code`, the path of `hfexport.modeling.pooling`, and the values of a `SentenceModules`.
    """
    from importlib.util import module_from_spec, spec_from_file_location
    from types import SimpleNamespace

    spec = spec_from_file_location("pooling", sentence["code"])
    if spec is None or spec.loader is None:
        raise Failure("bad_job", "there is no {}".format(sentence["code"]))
    code = module_from_spec(spec)
    spec.loader.exec_module(code)
    dense = [SimpleNamespace(**layer) for layer in sentence["dense"]]
    splade = None if sentence["splade"] is None else SimpleNamespace(**sentence["splade"])
    modules = SimpleNamespace(**dict(sentence, dense=dense, splade=splade))
    return code.SentenceModel(model, modules)


def _takes_pooling(auto_class: Any, checkpoint: str) -> bool:
    """Return whether the bare model would build a pooler, whose weights may be missing and which is no output here."""
    import inspect

    import transformers

    if not hasattr(auto_class, "_model_mapping"):
        return False  # a concrete model class
    config = transformers.AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    model_class = auto_class._model_mapping[type(config)]
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    return "add_pooling_layer" in inspect.signature(model_class).parameters


def wrap(model: Any, part: Mapping[str, Any], example: tuple[Any, ...]) -> Any:
    """Wrap a part as a module that takes and returns tensors in the given order, instead of forward's parameter order.

    The model returns a tuple. A call that returns named outputs tells the position of each output in that tuple.
    """
    import torch

    call = {"model": _whole, "encoder": _encoder, "decoder": _decoder}[part["name"]](model)
    with unless("model_failed", "the model fails on the traced example"), torch.no_grad():
        named = call(dict(zip(part["inputs"], example)), return_dict=True)
        recorded = [name for name, value in named.items() if value is not None]
        places = [recorded.index(name) for name in part["outputs"]]

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model if part["name"] != "encoder" else model.get_encoder()

        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            given = call(dict(zip(part["inputs"], tensors)), return_dict=False)
            present = [value for value in given if value is not None]
            return tuple(present[place] for place in places)

    wrapper = Positional().eval()
    with unless("model_failed", "the model fails on the traced example"), torch.no_grad():
        for name, output in zip(part["outputs"], wrapper(*example)):
            if not torch.equal(output, named[name]):
                raise Failure("model_failed", "the model returns another {} as a tuple than by name".format(name))
    return wrapper


def _whole(model: Any) -> Any:
    import inspect

    parameters = inspect.signature(model.forward).parameters
    further = {"use_cache": False} if "use_cache" in parameters else {}

    def call(given: Mapping[str, Any], return_dict: bool) -> Any:
        if "return_dict" in parameters:
            return model(**given, **further, return_dict=return_dict)
        named = model(**given)  # a `SentenceModel`, which has no `return_dict`
        return named if return_dict else tuple(named.values())

    return call


def _encoder(model: Any) -> Any:
    encoder = model.get_encoder()
    return lambda given, return_dict: encoder(**given, return_dict=return_dict)


def _decoder(model: Any) -> Any:
    """Return one decoder step as in AWS's MarianMT tutorial: takes all tokens so far, padded; gives the last logits.

    Before the head, the last token's state is selected with a product and a sum, since indexing by a tensor would stay
    on CPU. The head then computes that token only. The encoder is removed from the model, so that its weights are not
    saved with the decoder.
    """
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    class LastToken(torch.nn.Module):
        def __init__(self, head: Any) -> None:
            super().__init__()
            self.head = head
            self.index: Any = None

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            places = torch.arange(states.shape[1], dtype=torch.float32).unsqueeze(0)
            chosen = (places == self.index.unsqueeze(1)).to(states.dtype).unsqueeze(2)
            logits: torch.Tensor = self.head((states * chosen).sum(1, keepdim=True))
            return logits

    encoder = model.get_encoder()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is encoder:
                empty = torch.nn.Module()
                empty.config, empty.main_input_name = encoder.config, encoder.main_input_name
                setattr(parent, name, empty)
    head = LastToken(model.get_output_embeddings())
    model.set_output_embeddings(head)

    def call(given: Mapping[str, Any], return_dict: bool) -> Any:
        head.index = given["index"]
        states = given["encoder_hidden_states"]
        return model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states) if return_dict else (states,),
            attention_mask=given["encoder_attention_mask"],
            decoder_input_ids=given["decoder_input_ids"],
            use_cache=False,
            return_dict=return_dict,
        )

    return call


def answer(wrapper: Any, inputs: tuple[Any, ...]) -> list[Any]:
    """Run a wrapped model and return its outputs as arrays in order."""
    import torch

    with unless("model_failed", "the model fails on a probe"), torch.no_grad():
        return [output.detach().numpy() for output in wrapper(*inputs)]
