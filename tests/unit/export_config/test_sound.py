"""How much sound an encoder needs, and how many states it makes of it."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from hfexport.export_config import Convolution, SoundSeq2SeqConfig
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import validation_probes
from hfexport.export_config.tasks import TASKS
from hfexport.validation.compare import declared_problem
from tiny import CONFIGS


def moonshine() -> SoundSeq2SeqConfig:
    config = AutoConfig.for_model("moonshine", **CONFIGS["moonshine"])
    family = config_class_for("moonshine")(config, TASKS["speech2seq-lm-with-past"])
    assert isinstance(family, SoundSeq2SeqConfig)
    return family


@pytest.mark.parametrize(
    "convolution", [Convolution(10, 5), Convolution(5, 2, 2), Convolution(3, 2), Convolution(2, 2)]
)
def test_it_counts_as_torch_does(convolution: Convolution) -> None:
    layer = torch.nn.Conv1d(1, 1, convolution.kernel, convolution.stride, convolution.padding)
    for length in range(convolution.needed(1), 40):
        assert convolution.shortened(length) == layer(torch.zeros(1, 1, length)).shape[-1]
    for positions in (1, 2, 5):
        assert convolution.shortened(convolution.needed(positions)) == positions
        assert convolution.shortened(convolution.needed(positions) - 1) < positions


def test_the_shortest_sound_gives_one_state() -> None:
    family = moonshine()
    assert (family.encoder_length(1), family.states_length(895), family.states_length(894)) == (895, 1, 0)
    encoder = family.graphs("split")[0]
    assert encoder.limits["encoder_sequence"].minimum == 895


def test_probes_ask_a_state_s_shortest_sound_and_longer_ones() -> None:
    for graph in moonshine().graphs("split")[1:]:
        for probe in validation_probes(graph):
            if not probe.greedy_steps:
                assert probe.sizes["encoder_states"] == moonshine().states_length(probe.sizes["encoder_sequence"])
    lengths = [probe.sizes["encoder_sequence"] for probe in validation_probes(moonshine().graphs("split")[0])]
    assert min(lengths) == 895
    assert {(length - 511) % 384 for length in lengths} == {0, 128, 256}


def test_another_number_of_states_than_declared_is_told() -> None:
    encoder = moonshine().graphs("split")[0]
    probe = validation_probes(encoder)[1]
    batch, states = probe.sizes["batch"], probe.sizes["encoder_states"]
    hidden = torch.zeros(batch, states + 1, 32).numpy()
    assert "declares (batch, encoder_states, 32)" in declared_problem(encoder, probe, {"last_hidden_state": hidden})
    assert not declared_problem(encoder, probe, {"last_hidden_state": hidden[:, :-1]})


def test_a_mask_of_states_takes_one_sample_of_each_stride() -> None:
    mask = torch.ones(2, 1663, dtype=torch.int64)
    mask[1, 700:] = 0
    assert moonshine().mask_of_states(mask, 3).tolist() == [[1, 1, 1], [1, 1, 0]]
