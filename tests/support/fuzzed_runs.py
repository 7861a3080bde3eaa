"""Whole runs of the command line on damaged and hostile checkpoints, thousands of them, each in a fork of a warm process.

`python fuzzed_runs.py FOLDER SEED COUNT [MODEL_TYPE...]` prints a JSON object: how many runs ended with which exit code, the
longest, the largest, their processor time, and every run that broke a rule (see `problem_of`). The same seed gives the same
inputs. `1:1000:2` for COUNT runs every second input from the second on; `fuzz` divides the inputs among processes so.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hfexport._internal.forkserver import FORK_SERVERS, fork_servers
from hfexport._internal.workers import child_environment

VALUES: Final[tuple[Any, ...]] = (
    *(
        None,
        True,
        False,
        "",
        "x",
        -1,
        0,
        1,
        2,
        7,
        0.5,
        -0.5,
        1e30,
        float("nan"),
        2**14,
        2**20,
        2**31,
        2**40,
        2**63,
        10**40,
    ),
    *([], [0], [-1, 2], [2**30], ["x"], {}, {"x": None}, [[[[]]]]),
)
JSON_TEXTS: Final = (
    *("", "null", "[]", "0", '"x"', "{", "[" * 100_000, "\ufeff{}", '{"a": 1e999}', "{}\0", '{"model_type": "bert"'),
    *('{"x": ' * 5_000, "\\ud800", "NaN"),
)
WALL_S: Final = 150.0
MEMORY_BYTES: Final = 3 * 2**30
EXIT_CODES: Final = (0, 2, 3, 4, 5, 6)
EARLIER: Final = {"verdict": "passed", "files": [], "artifacts": [{"files": [{"path": "onnx/model.onnx"}]}]}

Change = Callable[[random.Random, Path], str]
"""Damages a checkpoint's folder; says how."""


def change_config(draw: random.Random, folder: Path) -> str:
    """Set one or two fields of config.json, at any depth, to any value."""
    path = folder / "config.json"
    config = json.loads(path.read_bytes())
    said = []
    for _ in range(draw.choice((1, 1, 1, 2))):
        place, name = config, draw.choice(sorted(config))
        while isinstance(place[name], dict) and place[name] and draw.random() < 0.8:
            place, name = place[name], draw.choice(sorted(place[name]))
        if name == "model_type" and draw.random() < 0.9:
            continue
        if draw.random() < 0.1:
            del place[name]
            said.append(f"without {name}")
        else:
            place[name] = draw.choice(VALUES)
            said.append(f"{name} = {place[name]!r}")
        if not config:
            break
    path.write_text(json.dumps(config))
    return f"config.json: {', '.join(said)}"


def change_file(draw: random.Random, folder: Path) -> str:
    """Truncate a file, change bytes of it, or give it other content."""
    path = draw.choice(sorted(file for file in folder.rglob("*") if file.is_file()))
    data = bytearray(path.read_bytes())
    name = path.relative_to(folder).as_posix()
    way = draw.choice(("cut", "bytes", "text", "noise", "length"))
    if way == "cut":
        del data[draw.randrange(len(data) + 1) :]
    elif way == "bytes" and data:
        for _ in range(draw.choice((1, 3, 30))):
            data[draw.randrange(min(len(data), draw.choice((16, 512, len(data)))))] = draw.randrange(256)
    elif way == "length" and path.suffix == ".safetensors":
        data[:8] = draw.choice((0, 1, 2**20, 2**40, 2**63)).to_bytes(8, "little")
    elif way == "text":
        data = bytearray(draw.choice(JSON_TEXTS).encode("utf-8", errors="surrogatepass"))
    else:
        data = bytearray(draw.randbytes(draw.choice((0, 8, 100, 5_000))))
    path.unlink()
    path.write_bytes(data)
    return f"{name}: {way}"


def change_safetensors(draw: random.Random, folder: Path) -> str:
    """Change the header of the weights: shapes, offsets, dtypes, names."""
    path = next(folder.rglob("*.safetensors"), None)
    if path is None:
        return change_file(draw, folder)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    name = draw.choice([key for key in sorted(header) if key != "__metadata__"])
    part = draw.choice(("shape", "data_offsets", "dtype", "name", "metadata", "missing"))
    if part == "missing":
        del header[name]
    elif part == "name":
        header[draw.choice(("", "x", "../x", "a" * 10_000))] = header.pop(name)
    elif part == "metadata":
        header["__metadata__"] = draw.choice(VALUES)
    else:
        header[name][part] = draw.choice((*VALUES, [2**40, 2**40], [-1, 5], "F8_E4M3", "I64", "BF16", "F64"))
    text = json.dumps(header).encode()
    path.unlink()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    return f"{path.name}: {part} of {name}"


def change_beside(draw: random.Random, folder: Path) -> str:
    """Add a file that is read if it is there, with content that it should not have."""
    names = (
        *("preprocessor_config.json", "generation_config.json", "adapter_config.json", "model.safetensors.index.json"),
        *("modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "pytorch_model.bin", "tf_model.h5"),
    )
    name = draw.choice(names)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    fields = ("type", "path", "idx", "weight_map", "word_embedding_dimension", "pooling_mode_mean_tokens", "size", "r")
    made = json.dumps(
        draw.choice(({draw.choice(fields): draw.choice(VALUES)}, [{draw.choice(fields): draw.choice(VALUES)}]))
    )
    path.write_text(draw.choice((made, made, draw.choice(JSON_TEXTS))), encoding="utf-8", errors="surrogatepass")
    if draw.random() < 0.5:
        (folder / "model.safetensors").unlink(missing_ok=True)
    return f"added {name}"


CHANGES: Final[Sequence[Change]] = (
    *(change_config,) * 11,
    *(change_file,) * 4,
    *(change_safetensors,) * 3,
    *(change_beside,) * 2,
)


def bases(folder: Path, model_types: Sequence[str]) -> dict[str, Path]:
    """Checkpoints to damage: one of each architecture, and of every kind of file that is read."""
    from tiny import CONFIGS, INFERRED, MISSES, make_checkpoint
    from tiny.sentence import write_modules

    made = {}
    for name in model_types or [name for name in CONFIGS if name not in MISSES]:
        from hfexport.export_config.builtin import known_architectures

        task = "auto" if name in INFERRED else known_architectures()[name].tasks[0].removesuffix("-with-past")
        made[name] = make_checkpoint(folder / name, name, task)
    sentence = make_checkpoint(folder / "sentence", "bert", "default", tokenizer=True)
    write_modules(sentence, ["mean"])
    pickled = make_checkpoint(folder / "pickled", "bert", "default")
    _to_pickle(pickled)
    made |= {
        "sentence": sentence,
        "pickled": pickled,
        "sharded": make_checkpoint(folder / "sharded", "bert", "default", shards=3),
    }
    return made


def _to_pickle(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def one_input(seed: int, number: int, made: Mapping[str, Path], folder: Path) -> tuple[str, list[str]]:
    """The n-th damaged checkpoint, in `folder`; what was done to it, and the options to run it with."""
    draw = random.Random(f"{seed} {number}")
    name = draw.choice(sorted(made))
    shutil.copytree(made[name], folder, copy_function=os.link)
    config = folder / "config.json"
    text = config.read_bytes()
    config.unlink()
    config.write_bytes(text)
    said = draw.choice(CHANGES)(draw, folder)
    options = ["--formats", "torchscript", "--validate", "off"]
    if name == "sentence" and draw.random() < 0.7:
        options += ["--task", "sentence-embedding"]
    kind = draw.random()
    if kind < 0.03:
        options = ["--formats", "onnx", *options[2:]]
    elif kind < 0.06:
        options = [*options[:2], *options[4:]]
    return f"{name}, {said}", options


def _earlier(output: Path) -> None:
    (output / "onnx").mkdir(parents=True)
    (output / "onnx" / "model.onnx").write_bytes(b"earlier")
    (output / "hfexport.json").write_text(json.dumps(EARLIER))


def _child(arguments: Sequence[str], log: Path) -> None:
    """Run the command line in this fork, and end."""
    code = 70
    try:
        os.setsid()
        to = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(to, 1)
        os.dup2(to, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        import torch

        from hfexport.cli.main import main

        torch.set_num_threads(1)
        code = main(list(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def problem_of(code: int, log: str, output: Path, wall_s: float) -> str | None:
    """The rule that a run broke: exit code, no traceback, no stale success, bounded time and memory, nothing left over."""
    for broken, said in (
        (code < 0 or wall_s > WALL_S, f"killed by signal {-code} after {wall_s:.0f} s"),
        (code not in EXIT_CODES, f"exit code {code}"),
        ("Traceback (most recent call last)" in log, "a traceback"),
        ("memory ran out" in log, "more memory than is allowed"),
    ):
        if broken:
            return said
    try:
        manifest = json.loads((output / "hfexport.json").read_bytes())
    except (OSError, ValueError) as error:
        return f"no manifest: {error}"
    if manifest.keys() == EARLIER.keys():
        return "the earlier manifest is still there"
    if (code == 0) == (manifest["verdict"] in ("error", "failed")):
        return f"exit code {code}, but verdict {manifest['verdict']}"
    listed = {"hfexport.json", *(file["path"] for file in manifest["files"])}
    listed |= {file["path"] for artifact in manifest["artifacts"] for file in artifact["files"]}
    found = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    left = found - (listed if code == 0 else {"hfexport.json"})
    return f"left over: {sorted(left)[:3]}" if left else None


def _run(number: int, seed: int, made: Mapping[str, Path], work: Path) -> dict[str, Any]:
    folder, output, log = work / "checkpoint", work / "out", work / "log"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    said, options = one_input(seed, number, made, folder)
    _earlier(output)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(["--model", str(folder), "--output", str(output), *options], log)
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - start > WALL_S:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    wall_s, code = time.monotonic() - start, os.waitstatus_to_exitcode(status)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    problem = problem_of(code, text, output, wall_s)
    return {
        "number": number,
        "input": said,
        "options": " ".join(options),
        "exit_code": code,
        "wall_s": round(wall_s, 2),
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "problem": problem,
        "said": re.sub(r"\s+", " ", text[-700:]) if problem else "",
    }


def fuzz(folder: Path, seed: int, count: int, *model_types: str, jobs: int = 1) -> dict[str, Any]:
    """Run inputs in `jobs` processes at the same time; return what `main` prints, of all of them."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    running = []
    for job in range(jobs):
        place = folder / f"job{job}"
        place.mkdir(parents=True)
        command = [sys.executable, __file__, str(place), str(seed), f"{job}:{count}:{jobs}", *model_types]
        running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    printed = [process.communicate()[0] for process in running]
    if failed := [process.returncode for process in running if process.returncode != 0]:
        raise RuntimeError(f"seed {seed}: the fuzz itself ended with {failed}")
    return merged([json.loads(text.splitlines()[-1]) for text in printed])


def merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what the processes found."""
    codes: Counter[str] = Counter()
    for part in parts:
        codes.update(part["exit_codes"])
    return {
        **parts[0],
        "count": sum(part["count"] for part in parts),
        "exit_codes": {code: codes[code] for code in sorted(codes)},
        "cpu_s": sum(part["cpu_s"] for part in parts),
        "longest_s": max(part["longest_s"] for part in parts),
        "largest_rss_bytes": max(part["largest_rss_bytes"] for part in parts),
        "problems": [problem for part in parts for problem in part["problems"]],
    }


def main(arguments: Sequence[str]) -> None:
    """Make the checkpoints, run the inputs one after the other, print what came of them."""
    import hfexport.backends.onnx.backend
    import hfexport.backends.torchscript.trace
    import hfexport.cli.main
    import hfexport.modeling.find_export_config
    import hfexport.run.pipeline  # noqa: F401

    with contextlib.ExitStack() as stack:
        if FORK_SERVERS not in os.environ:  # with them a run exports in its own process, and its children start at once
            os.environ[FORK_SERVERS] = stack.enter_context(fork_servers(child_environment(os.environ)))
        found = _all(arguments)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # without the children of the servers
    print(json.dumps({**found, "cpu_s": round(used.ru_utime + used.ru_stime)}))


def _all(arguments: Sequence[str]) -> dict[str, Any]:
    place, seed = Path(arguments[0]), int(arguments[1])
    numbers = range(*map(int, arguments[2].split(":")))
    made = bases(place / "bases", arguments[3:])
    codes: Counter[int] = Counter()
    runs: list[dict[str, Any]] = []
    for done, number in enumerate(numbers, start=1):
        ran = _run(number, seed, made, place / "run")
        codes[ran["exit_code"]] += 1
        runs.append(ran)
        if done % 500 == 0:
            print(f"{done} of {len(numbers)}", file=sys.stderr, flush=True)
        if ran["problem"]:
            print(json.dumps(ran), file=sys.stderr, flush=True)
    longest, largest = max(run["wall_s"] for run in runs), max(run["peak_rss_bytes"] for run in runs)
    return {
        "seed": seed,
        "count": len(numbers),
        "architectures": len(made),
        "exit_codes": {str(code): codes[code] for code in sorted(codes)},
        "longest_s": longest,
        "largest_rss_bytes": largest,
        "problems": [run for run in runs if run["problem"]],
    }


if __name__ == "__main__":
    main(sys.argv[1:])
