"""Quality of variants: run the model and each variant on the same inputs, each in a new process, and measure the loss.

`reference.py` chooses inputs and runs the model; the runner of validation runs the variant; `measures.py` compares,
`thresholds.py` says what is allowed, and `evaluate.py` leads through these steps.
"""

from hfexport.validation.quality.evaluate import (
    MadeVariant,
    Measure,
    ModelAnswers,
    Quality,
    measure_variant,
    not_measured,
    start_model,
)

__all__ = ["MadeVariant", "Measure", "ModelAnswers", "Quality", "measure_variant", "not_measured", "start_model"]
