"""What can be known of a Neuron artifact, here and now, in four checks; what cannot is said to be not run.

(a) *environment*: the checkpoint means the same to the SDK's older torch and transformers as to the unpatched model.
(b) *trace*: the module that was compiled, not compiled, answers as the model does, in a process that did not make it.
(c) *compiled*: most of the graph was compiled, and the saved file is the graph that the compiler gave.
(d) *device*: the compiled artifact answers as the model does, as far as bfloat16 can, on a Neuron device.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hfexport.backends.base import Artifact
from hfexport.backends.neuron.artifact import NeuronArtifact, NeuronPart
from hfexport.backends.neuron.protocol import START_S, NoDevice, ask
from hfexport.errors import NeuronError, ValidationError
from hfexport.export_config import ExportConfig, Tolerance
from hfexport.validation import ArtifactVerdict, Check, ProbeResult, Reference, validate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DEVICE_TOLERANCE", "validate_neuron"]

DEVICE_TOLERANCE: Final = Tolerance(5e-2, 5e-2)
"""bfloat16 keeps 8 bits of a number, and a deep model rounds at every layer. Inf1's compiler casts to it by default."""


def validate_neuron(
    artifact: NeuronArtifact,
    config: ExportConfig,
    reference: Reference,
    tolerance: Tolerance,
    *,
    min_compiled: float,
    folder: Path,
    env: Mapping[str, str],
) -> ArtifactVerdict:
    """Hold an artifact to the four checks.

    Args:
        artifact: made with the probes that `reference` was asked.
        config: the interface it should have.
        reference: what the unpatched model answers.
        tolerance: for (a) and (b); (d) has its own.
        min_compiled: the smallest share of operators that must have been compiled.
        folder: for the runners' files.
        env: the environment of which children see an allow-list.

    Returns:
        `passed` only with a device; `incomplete` where (d) could not be run; `failed` with every reason.

    Raises:
        ValidationError, NeuronError: it could not be judged.
    """
    (part,) = artifact.parts
    trace = Artifact("neuron", part.trace, (part.trace,), artifact.fixed_sizes)
    traced = validate(trace, config, reference, tolerance, folder=folder / "trace", env=env)
    checks = (
        _environment(artifact, part, reference, tolerance),
        _trace(traced),
        _compiled(part, min_compiled),
        _device(artifact, part, reference, folder / "device"),
    )
    found = {check.verdict for check in checks}
    verdict = "failed" if "failed" in found else "incomplete" if "not_run" in found else "passed"
    return ArtifactVerdict(
        verdict,  # type: ignore[arg-type]
        tolerance,
        traced.probes,
        session=traced.session,
        stages=traced.stages,
        checks=checks,
    )


def _environment(artifact: NeuronArtifact, part: NeuronPart, reference: Reference, tolerance: Tolerance) -> Check:
    results = _compare(artifact.reference, part, reference, tolerance)
    versions = artifact.details["versions"]
    stack = f"torch {versions['torch']} and transformers {versions['transformers']}"
    if all(result.passed for result in results):
        return Check("environment", "passed", f"{stack} read the checkpoint as it is", tolerance, results)
    reason = f"{stack} read this checkpoint as another model: {_first_problem(results)}"
    return Check("environment", "failed", reason, tolerance, results)


def _trace(traced: ArtifactVerdict) -> Check:
    if traced.verdict == "passed":
        return Check(
            "trace", "passed", "the uncompiled trace answers as the model does", traced.tolerance, traced.probes
        )
    reason = traced.failures[0] if traced.failures else "no probe was answered"
    return Check("trace", "failed", reason, traced.tolerance, traced.probes)


def _compiled(part: NeuronPart, min_compiled: float) -> Check:
    left = ", ".join(f"{count} {kind}" for kind, count in part.cpu_operators.items()) or "none"
    share = f"{100 * part.compiled_share:.1f} % of operators compiled, in {part.subgraphs} subgraphs; on CPU: {left}"
    if part.log.fallbacks:
        share += f"; failed to compile and left on CPU: {', '.join(part.log.fallbacks)}"
    if part.subgraphs != part.archived_subgraphs:
        reason = (
            f"{part.path.name} calls {part.archived_subgraphs} compiled subgraphs, the compiler gave {part.subgraphs}"
        )
        return Check("compiled", "failed", reason)
    if part.subgraphs == 0:
        return Check("compiled", "failed", f"nothing was compiled: {share}")
    if part.compiled_share < min_compiled:
        return Check("compiled", "failed", f"{share}; neuron-min-compiled asks for {100 * min_compiled:g} %")
    return Check("compiled", "passed", share)


def _device(artifact: NeuronArtifact, part: NeuronPart, reference: Reference, folder: Path) -> Check:
    """Ask the compiled artifact, in a fresh process of the SDK's interpreter."""
    if part.subgraphs == 0:
        return Check("device", "not_run", "nothing was compiled")
    try:
        outputs = _ask_device(artifact, part, len(reference.probes), folder)
    except NoDevice as error:
        return Check("device", "not_run", f"no Neuron device ({error})")
    except (NeuronError, ValidationError) as error:
        if isinstance(error, ValidationError) or _devices():
            return Check("device", "failed", error.message)
        # The run time may also crash where it finds no driver.
        return Check("device", "not_run", f"no Neuron device ({error.message.splitlines()[0]})")
    results = _compare(outputs, part, reference, DEVICE_TOLERANCE)
    if all(result.passed for result in results):
        return Check("device", "passed", "the compiled artifact ran on a Neuron device", DEVICE_TOLERANCE, results)
    return Check("device", "failed", _first_problem(results), DEVICE_TOLERANCE, results)


def _ask_device(artifact: NeuronArtifact, part: NeuronPart, probes: int, folder: Path) -> Path:
    """The file with the answers of the compiled artifact."""
    run = artifact.run
    assert run is not None, "the back end records how it ran"
    folder.mkdir(parents=True)
    shutil.copyfile(run.folder / "export" / "inputs.npz", folder / "inputs.npz")
    job = {
        "action": "run",
        "artifact": str(part.path.resolve()),
        "part": part.name,
        "inputs": [spec.name for spec in part.config.inputs],
        "outputs": [spec.name for spec in part.config.outputs],
        "probes": probes,
    }
    answer = ask(run, job, folder, timeout_s=START_S)
    if "outputs.npz" not in answer.files:
        raise ValidationError("the worker ran the artifact and wrote no outputs")
    return answer.files["outputs.npz"]


def _devices() -> list[Path]:
    return list(Path("/dev").glob("neuron[0-9]*"))


def _compare(path: Path, part: NeuronPart, reference: Reference, tolerance: Tolerance) -> tuple[ProbeResult, ...]:
    """What the worker wrote down in `path` against what the unpatched model answered."""
    from hfexport.validation.arrays import read_arrays
    from hfexport.validation.compare import compare_probe

    answers = _read_answers(path)
    results = []
    for number, probe in enumerate(reference.probes):
        wanted = read_arrays(reference.folder / "outputs" / str(number))
        prefix = f"{part.name}/{number}/"
        found = {name.removeprefix(prefix): array for name, array in answers.items() if name.startswith(prefix)}
        results.append(compare_probe(probe, found, wanted, tolerance))
    return tuple(results)


def _read_answers(path: Path) -> dict[str, NDArray[np.generic]]:
    import zipfile

    import numpy as np

    arrays: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise NeuronError(
            f"{path.name} of the Neuron worker cannot be read: {error}", remedy="Please report it."
        ) from error
    return arrays


def _first_problem(results: tuple[ProbeResult, ...]) -> str:
    for result in results:
        if result.problem:
            return f"{result.probe.name}: {result.problem}"
        for output in result.outputs:
            if output.problem:
                return f"{result.probe.name}: {output.name}: {output.problem}"
    return "no probe was answered"
