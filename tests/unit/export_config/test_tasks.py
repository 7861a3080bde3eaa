"""Which task a checkpoint is exported for, and which it is refused for."""

from __future__ import annotations

import pytest

from hfexport.errors import UnsupportedError
from hfexport.export_config.builtin import known_architectures
from hfexport.export_config.tasks import TASKS, declared_tasks, select_task

BERT = known_architectures()["bert"].tasks
GPT2 = known_architectures()["gpt2"].tasks


@pytest.mark.parametrize(
    ("architecture", "supported", "expected"),
    [
        ("BertForSequenceClassification", BERT, "sequence-classification"),
        ("BertForMaskedLM", BERT, "masked-lm"),
        ("BertForPreTraining", BERT, "masked-lm"),
        ("BertLMHeadModel", BERT, "causal-lm"),
        ("BertModel", BERT, "default"),
        ("GPT2LMHeadModel", GPT2, "causal-lm-with-past"),
        ("GPT2Model", GPT2, "default-with-past"),
        ("GPT2ForTokenClassification", GPT2, "token-classification"),
        ("XLMWithLMHeadModel", BERT, "masked-lm"),
        ("FlaubertForQuestionAnsweringSimple", BERT, "question-answering"),
    ],
)
def test_auto_takes_the_task_the_checkpoint_was_trained_for(
    architecture: str, supported: tuple[str, ...], expected: str
) -> None:
    task = select_task("auto", model_type="any", architectures=[architecture], supported=supported)
    assert task is TASKS[expected]


def test_a_checkpoint_with_a_head_also_serves_the_bare_model() -> None:
    assert declared_tasks(["BertForQuestionAnswering"], BERT) == ("question-answering", "default")


def test_a_task_without_its_head_is_refused_with_what_is_possible() -> None:
    with pytest.raises(UnsupportedError) as caught:
        select_task("masked-lm", model_type="bert", architectures=["BertForTokenClassification"], supported=BERT)
    assert "BertForTokenClassification" in caught.value.message
    assert caught.value.remedy == "This checkpoint can be exported for: token-classification, default."


def test_a_task_the_architecture_lacks_is_refused_with_what_it_has() -> None:
    with pytest.raises(UnsupportedError, match="not supported for gpt2") as caught:
        select_task("masked-lm", model_type="gpt2", architectures=["GPT2LMHeadModel"], supported=GPT2)
    assert "causal-lm-with-past" in caught.value.remedy


@pytest.mark.parametrize("architectures", [[], ["BertForNextSentencePrediction"]])
def test_auto_never_guesses(architectures: list[str]) -> None:
    with pytest.raises(UnsupportedError) as caught:
        select_task("auto", model_type="bert", architectures=architectures, supported=BERT)
    assert "Give the task by name" in caught.value.remedy
