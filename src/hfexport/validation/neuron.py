"""Validate a Neuron artifact with the checks that this machine allows; the others are reported as not run.

- *environment*: the SDK's older torch and transformers give the same outputs for the checkpoint as the unpatched model.
- *trace*: the traced but uncompiled module gives the model's outputs, in a fresh process.
- *generation*: a text generation model writes the same tokens, greedily and with beams.
- *compiled*: enough of the graph was compiled, and the saved file has the subgraphs that the compiler returned.
- *device*: the compiled artifact gives the model's outputs on a Neuron device, within the precision of bfloat16.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hfexport._internal import workers
from hfexport._internal.messages import plain
from hfexport.backends.base import Artifact
from hfexport.backends.neuron.artifact import NeuronArtifact, NeuronPart
from hfexport.backends.neuron.messages import GenerateCall, GenerateRequest, Request, RunRequest, WorkerAnswer
from hfexport.backends.neuron.plan import DTYPE, PartPlan
from hfexport.backends.neuron.protocol import NoDevice, ask
from hfexport.errors import NeuronError, ValidationError, first_line
from hfexport.export_config import Tolerance
from hfexport.export_config.arrays import Arrays
from hfexport.validation.messages import PaddedReferenceJob
from hfexport.validation.reference.start import Reference, start_reference
from hfexport.validation.validate import validate
from hfexport.validation.verdict import ArtifactVerdict, Check, ProbeResult, Verdict

__all__ = ["DEVICE_TOLERANCE", "NeuronReference", "start_neuron_reference", "validate_neuron", "validate_on_device"]

DEVICE_TOLERANCE: Final = Tolerance(5e-2, 5e-2)
"""Tolerance for bfloat16, to which Inf1's compiler casts by default: 8 bits of precision, rounded at every layer."""


@dataclass(frozen=True)
class NeuronReference:
    """The unpatched model's outputs, which a child process may still be computing.

    Attributes:
        parts: reference by name of the artifact's part.
        calls: arguments of each call of `generate`, for text generation.
        generation: folder with the input texts and the generated tokens of each call.
    """

    parts: Mapping[str, Reference]
    calls: tuple[GenerateCall, ...] = ()
    generation: Path = Path()


def start_neuron_reference(
    checkpoint: Path, parts: tuple[PartPlan, ...], *, folder: Path, env: Mapping[str, str]
) -> NeuronReference:
    """Start computing the unpatched model's outputs for the probes of `parts` in a child process; return at once."""
    if len(parts) == 1:
        (part,) = parts
        return NeuronReference(
            {part.name: start_reference(checkpoint, part.config, DTYPE, part.probes, folder=folder, env=env)}
        )
    folder = folder.resolve()
    sizes = {part.name: dict(part.sizes) for part in parts}
    beams = sizes["decoder"]["batch"] // sizes["encoder"]["batch"]
    longest = sizes["decoder"]["decoder_sequence"]
    calls = tuple(GenerateCall(max_length=longest, num_beams=number) for number in dict.fromkeys((1, beams)))
    job = PaddedReferenceJob(
        checkpoint=str(checkpoint.resolve()),
        sizes=sizes,
        calls=calls,
        threads=max(1, workers.available_cores(env) - 1),
        folder=str(folder),
    )
    module, environment = "hfexport.validation.reference.padded", workers.child_environment(env)
    worker = workers.start(module, plain(job), name="reference", folder=folder, env=environment, kind="transformers")
    references = {part.name: Reference(worker, part.probes, DTYPE, folder / part.name) for part in parts}
    return NeuronReference(references, calls, folder / "generation")


def validate_neuron(
    artifact: NeuronArtifact,
    reference: NeuronReference,
    tolerance: Tolerance,
    *,
    min_compiled: float,
    folder: Path,
    env: Mapping[str, str],
    timeout_s: float,
) -> ArtifactVerdict:
    """Run all checks on an artifact.

    Args:
        artifact: artifact made with the same probes as `reference`.
        reference: outputs of the unpatched model.
        tolerance: tolerance for *environment* and *trace*; *device* has its own.
        min_compiled: smallest allowed share of compiled operators in each part.
        folder: folder for the child processes' files.
        env: environment variables; child processes get those on an allow-list.
        timeout_s: time limit of each child process.

    Returns:
        `passed` only with a device; `incomplete` if *device* could not run; `failed` with all reasons.

    Raises:
        ValidationError, NeuronError: the artifact could not be validated.
    """
    traced = [_run_trace(part, reference, tolerance, folder, env, timeout_s) for part in artifact.parts]
    checks = [
        _environment(artifact, reference, tolerance),
        _trace(traced, tolerance),
        *([_generation(artifact, reference, folder / "generation", timeout_s)] if reference.calls else []),
        _compiled(artifact.parts, min_compiled),
        _device(artifact, reference, folder, timeout_s),
    ]
    found = {check.verdict for check in checks}
    verdict: Verdict = "failed" if "failed" in found else "incomplete" if "not_run" in found else "passed"
    return ArtifactVerdict(
        verdict,
        tolerance,
        tuple(result for one in traced for result in one.probes),
        session=traced[0].session,
        checks=tuple(checks),
    )


def validate_on_device(
    artifact: NeuronArtifact, reference: NeuronReference, *, folder: Path, timeout_s: float
) -> ArtifactVerdict:
    """Run the checks *compiled* (by the subgraphs in its files) and *device* on an existing artifact.

    Returns:
        `passed` only with a device; `not_run` without one.

    Raises:
        ValidationError: the artifact could not be validated.
    """
    empty = [part.name for part in artifact.parts if part.subgraphs == 0]
    if empty:
        check = Check("compiled", "failed", f"the file of {empty[0]} calls no compiled subgraph")
        return ArtifactVerdict("failed", DEVICE_TOLERANCE, checks=(check,))
    for part in reference.parts.values():
        part.worker.result(timeout_s)
    device = _device(artifact, reference, folder, timeout_s)
    if device.verdict == "not_run":
        return ArtifactVerdict("not_run", reason=device.reason, checks=(device,))
    reason = device.reason if device.verdict == "passed" else ""
    return ArtifactVerdict(device.verdict, DEVICE_TOLERANCE, device.probes, reason, checks=(device,))


def _run_trace(
    part: NeuronPart,
    reference: NeuronReference,
    tolerance: Tolerance,
    folder: Path,
    env: Mapping[str, str],
    timeout_s: float,
) -> ArtifactVerdict:
    trace = Artifact("neuron", part.trace, (part.trace,), part.plan.held)
    place = folder / f"trace-{part.name}"
    return validate(
        trace,
        part.plan.config,
        reference.parts[part.name],
        tolerance,
        folder=place,
        env=env,
        timeout_s=timeout_s,
        compare_weights=False,
    )


def _environment(artifact: NeuronArtifact, reference: NeuronReference, tolerance: Tolerance) -> Check:
    results = tuple(
        result for part in artifact.parts for result in _compare(artifact.reference, part, reference, tolerance)
    )
    versions = artifact.details["versions"]
    stack = f"torch {versions['torch']} and transformers {versions['transformers']}"
    if all(result.passed for result in results):
        return Check("environment", "passed", f"{stack} give the unpatched model's outputs", tolerance, results)
    reason = f"{stack} give other outputs for this checkpoint: {_first_problem(results)}"
    return Check("environment", "failed", reason, tolerance, results)


def _trace(traced: list[ArtifactVerdict], tolerance: Tolerance) -> Check:
    results = tuple(result for one in traced for result in one.probes)
    wrong = [line for one in traced if one.verdict == "failed" for line in one.failures or ("no probe was answered",)]
    if wrong:
        return Check("trace", "failed", wrong[0], tolerance, results)
    if unproved := [one.reason for one in traced if one.verdict == "incomplete"]:
        return Check("trace", "not_run", unproved[0], tolerance, results)
    return Check("trace", "passed", "the uncompiled trace gives the model's outputs", tolerance, results)


def _generation(artifact: NeuronArtifact, reference: NeuronReference, folder: Path, timeout_s: float) -> Check:
    """Check that the artifact's runtime package, with the uncompiled traces, generates the model's tokens."""
    traces = {part.name: part.trace for part in artifact.parts}
    return _written("generation", artifact, reference, traces, folder, timeout_s, compiled=False)


def _written(
    name: str,
    artifact: NeuronArtifact,
    reference: NeuronReference,
    graphs: Mapping[str, Path],
    folder: Path,
    timeout_s: float,
    *,
    compiled: bool,
) -> Check:
    import numpy as np

    from hfexport.validation.arrays import read_arrays

    inputs = read_arrays(reference.generation / "inputs" / "0")
    folder.mkdir(parents=True)
    np.savez(folder / "inputs.npz", **{f"generation/{key}": array for key, array in inputs.items()})  # type: ignore[arg-type]
    home = artifact.parts[0].path.parent.parent
    job = GenerateRequest(
        runtime=str(artifact.package.resolve()),
        config=str(home.resolve()),
        encoder=str(graphs["encoder"].resolve()),
        decoder=str(graphs["decoder"].resolve()),
        compiled=compiled,
        calls=reference.calls,
    )
    answers = _read_answers(_outputs(artifact, job, folder, timeout_s))
    for number, call in enumerate(reference.calls):
        wanted = read_arrays(reference.generation / "outputs" / str(number))["tokens"]
        found = answers.get(f"generation/{number}/tokens")
        if found is None or found.shape != wanted.shape or not bool((found == wanted).all()):
            return Check(
                name,
                "failed",
                f"with {call.num_beams} beams it writes {_shown(found)}; the model writes {_shown(wanted)}",
            )
    beams = " and ".join(str(call.num_beams) for call in reference.calls)
    rows, length = wanted.shape
    return Check(
        name, "passed", f"the same {rows} texts of up to {length} tokens as `generate` writes, with {beams} beams"
    )


def _shown(tokens: Any) -> str:
    return "nothing" if tokens is None else str(tokens.tolist())[:200]


def _compiled(parts: tuple[NeuronPart, ...], min_compiled: float) -> Check:
    found = [_part_compiled(part, min_compiled) for part in parts]
    several = len(parts) > 1
    reason = "; ".join(
        f"{part.name}: {said}" if several else said for part, (_, said) in zip(parts, found, strict=True)
    )
    return Check("compiled", "passed" if all(fine for fine, _ in found) else "failed", reason)


def _part_compiled(part: NeuronPart, min_compiled: float) -> tuple[bool, str]:
    """Return whether enough of the part was compiled, and the text that says so."""
    left = ", ".join(f"{count} {kind}" for kind, count in part.cpu_operators.items()) or "none"
    share = f"{100 * part.compiled_share:.1f} % of operators compiled, in {part.subgraphs} subgraphs; on CPU: {left}"
    if part.log.fallbacks:
        share += f"; failed to compile and left on CPU: {', '.join(part.log.fallbacks)}"
    if part.subgraphs != part.archived_subgraphs:
        return (
            False,
            f"the file calls {part.archived_subgraphs} compiled subgraphs, the compiler returned {part.subgraphs}",
        )
    if part.subgraphs == 0:
        return False, f"nothing was compiled: {share}"
    if part.compiled_share < min_compiled:
        return False, f"{share}; neuron-min-compiled requires {100 * min_compiled:g} %"
    return True, share


def _device(artifact: NeuronArtifact, reference: NeuronReference, folder: Path, timeout_s: float) -> Check:
    """Run the compiled artifact in fresh processes of the SDK's interpreter, and compare its outputs."""
    if any(part.subgraphs == 0 for part in artifact.parts):
        return Check("device", "not_run", "nothing was compiled")
    results: list[ProbeResult] = []
    written = ""
    try:
        for part in artifact.parts:
            outputs = _outputs(artifact, _device_job(part), folder / f"device-{part.name}", timeout_s)
            results += _compare(outputs, part, reference, DEVICE_TOLERANCE)
        if reference.calls and all(result.passed for result in results):
            written = _written_on_device(artifact, reference, folder / "device-generation", timeout_s)
    except NoDevice as error:
        return Check("device", "not_run", f"no Neuron device ({error})")
    except (NeuronError, ValidationError) as error:
        if isinstance(error, ValidationError) or _devices():
            return Check("device", "failed", error.message)
        # The runtime may also crash if there is no driver.
        return Check("device", "not_run", f"no Neuron device ({first_line(error)})")
    if all(result.passed for result in results):
        reason = f"the compiled artifact ran on a Neuron device{written}"
        return Check("device", "passed", reason, DEVICE_TOLERANCE, tuple(results))
    return Check("device", "failed", _first_problem(tuple(results)), DEVICE_TOLERANCE, tuple(results))


def _written_on_device(artifact: NeuronArtifact, reference: NeuronReference, folder: Path, timeout_s: float) -> str:
    """Describe generation on the device. Rounding to bfloat16 may change tokens, so a difference is no failure."""
    graphs = {part.name: part.path for part in artifact.parts}
    check = _written("device", artifact, reference, graphs, folder, timeout_s, compiled=True)
    same = "the model's text" if check.verdict == "passed" else "other text than the model, as rounding can cause"
    return f", and writes {same}"


def _device_job(part: NeuronPart) -> RunRequest:
    return RunRequest(
        artifact=str(part.path.resolve()),
        part=part.name,
        inputs=tuple(spec.name for spec in part.plan.config.inputs),
        outputs=tuple(spec.name for spec in part.plan.config.outputs),
        probes=len(part.plan.probes),
    )


def _outputs(artifact: NeuronArtifact, job: Request, folder: Path, timeout_s: float) -> Path:
    """Run the worker on `job` and return the file with its outputs."""
    run = artifact.run
    assert run is not None, "the back end records how it ran"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "inputs.npz").exists():
        shutil.copyfile(run.folder / "export" / "inputs.npz", folder / "inputs.npz")
    answer = ask(run, job, WorkerAnswer, folder, timeout_s=timeout_s)
    if "outputs.npz" not in answer.files:
        raise ValidationError("the worker ran the artifact but wrote no outputs")
    return answer.files["outputs.npz"]


def _devices() -> list[Path]:
    return list(Path("/dev").glob("neuron[0-9]*"))


def _compare(path: Path, part: NeuronPart, reference: NeuronReference, tolerance: Tolerance) -> tuple[ProbeResult, ...]:
    """Compare the worker's outputs in `path` with those of the unpatched model."""
    from hfexport.validation.arrays import read_arrays
    from hfexport.validation.compare import compare_probe
    from hfexport.validation.readable import hidden_positions

    answers = _read_answers(path)
    asked = reference.parts[part.name]
    results = []
    for number, probe in enumerate(asked.probes):
        wanted = read_arrays(asked.folder / "outputs" / str(number))
        prefix = f"{part.name}/{number}/"
        found = {name.removeprefix(prefix): array for name, array in answers.items() if name.startswith(prefix)}
        hidden = hidden_positions(part.plan.config, probe, read_arrays(asked.folder / "inputs" / str(number)), wanted)
        results.append(compare_probe(probe, found, wanted, tolerance, hidden))
    return tuple(results)


def _read_answers(path: Path) -> Arrays:
    import zipfile

    import numpy as np

    arrays: Arrays = {}
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
