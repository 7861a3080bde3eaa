"""`hfexport.torchscript.trace`: what it takes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from hfexport.errors import ExportError, InputsError
from hfexport.torchscript import trace
from tiny import make_checkpoint

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> transformers.PreTrainedModel:
    folder = make_checkpoint(tmp_path_factory.mktemp("gpt2"), "gpt2", "causal-lm")
    return transformers.AutoModelForCausalLM.from_pretrained(folder)  # type: ignore[no-any-return]


def test_a_decoder_gives_its_logits_alone_and_stays_as_it_was(
    decoder: transformers.PreTrainedModel, tmp_path: Path
) -> None:
    decoder.train()
    traced = trace(decoder, [IDS])
    assert decoder.training
    assert all(parameter.requires_grad for parameter in decoder.parameters())
    torch.jit.save(traced, str(tmp_path / "model.pt"))
    found = torch.jit.load(str(tmp_path / "model.pt"))(IDS[:1, :3])
    decoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(found[0], decoder(IDS[:1, :3]).logits, atol=1e-4, rtol=1e-4)
    assert len(found) == 1


def test_inputs_that_are_no_tensors_are_refused(decoder: transformers.PreTrainedModel) -> None:
    for wrong in ([], [[1, 2]], {"input_ids": "text"}):
        with pytest.raises(InputsError, match="one or more tensors"):
            trace(decoder, wrong)  # type: ignore[arg-type]


def test_inputs_that_the_model_does_not_take_are_told(decoder: transformers.PreTrainedModel) -> None:
    with pytest.raises(ExportError, match="GPT2LMHeadModel cannot be traced: "):
        trace(decoder, {"no_such_input": IDS})


def test_classes_with_the_flag_give_tuples_and_have_weights_of_their_own(tmp_path: Path) -> None:
    from hfexport.torchscript import BertForMaskedLM  # type: ignore[attr-defined]

    folder = make_checkpoint(tmp_path, "bert", "masked-lm")
    flagged = BertForMaskedLM.from_pretrained(folder, torchscript=True)
    plain = BertForMaskedLM.from_pretrained(folder)
    assert isinstance(plain, transformers.BertForMaskedLM) and type(flagged).__name__ == "BertForMaskedLM"
    for model, tied in ((flagged, False), (plain, True)):
        decoder, embedding = model.cls.predictions.decoder.weight, model.bert.embeddings.word_embeddings.weight
        assert (decoder.data_ptr() == embedding.data_ptr()) is tied
    with torch.no_grad():
        (logits,) = torch.jit.trace(flagged, [IDS])(IDS[:1, :3])  # type: ignore[no-untyped-call]
        torch.testing.assert_close(logits, plain.eval()(IDS[:1, :3]).logits, atol=1e-4, rtol=1e-4)
    config = transformers.BertConfig(**{**plain.config.to_dict(), "torchscript": True})
    assert isinstance(BertForMaskedLM(config).eval()(IDS), tuple)


def test_names_that_transformers_does_not_have_are_none_here() -> None:
    import hfexport.torchscript

    with pytest.raises(AttributeError, match="no attribute 'BertModell'"):
        _ = hfexport.torchscript.BertModell
