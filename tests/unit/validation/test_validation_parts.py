"""The small parts of validation: array folders, steps of decoding, memory that is left."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hfexport.validation.arrays import await_arrays, read_arrays, write_arrays
from hfexport.validation.generation import next_inputs
from hfexport.validation.memory import available_bytes


def test_arrays_come_back_in_order_with_dtype_and_shape(tmp_path: Path) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "past_key_values.0.key": np.zeros((2, 4, 0, 8), np.float32),
        "logits": np.arange(6, dtype=np.float16).reshape(2, 3).T,
        "a/../b": np.array(7),
    }
    write_arrays(tmp_path / "0", arrays)
    found = read_arrays(tmp_path / "0")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert np.array_equal(found[name], array)
        assert not found[name].flags.writeable


def test_a_folder_is_written_once(tmp_path: Path) -> None:
    write_arrays(tmp_path / "0", {"a": np.zeros(1)})
    with pytest.raises(FileExistsError):
        write_arrays(tmp_path / "0", {"a": np.ones(1)})


def test_a_folder_without_its_index_is_not_read(tmp_path: Path) -> None:
    write_arrays(tmp_path / "0", {"a": np.zeros(1)})
    (tmp_path / "0" / "index.json").unlink()
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "0")


def test_arrays_that_another_process_still_writes_are_awaited(tmp_path: Path) -> None:
    write_arrays(tmp_path / "made", {"a": np.arange(3)})
    (tmp_path / "0").mkdir()

    def finish() -> None:
        for name in ("0.npy", "index.json"):
            (tmp_path / "made" / name).rename(tmp_path / "0" / name)

    timer = threading.Timer(0.05, finish)
    timer.start()
    assert await_arrays(tmp_path / "0")["a"].tolist() == [0, 1, 2]
    timer.join()


def test_the_next_step_appends_to_mask_positions_and_cache() -> None:
    inputs: dict[str, NDArray[Any]] = {
        "input_ids": np.array([[5, 6, 7], [0, 0, 8]]),
        "attention_mask": np.array([[1, 1, 1], [0, 0, 1]]),
        "position_ids": np.array([[0, 1, 2], [1, 1, 0]]),
        "past_key_values.0.key": np.zeros((2, 1, 0, 4), np.float32),
    }
    outputs: dict[str, NDArray[Any]] = {
        "logits": np.zeros((2, 3, 9)),
        "present.0.key": np.ones((2, 1, 3, 4), np.float32),
    }
    made = next_inputs(inputs, outputs, np.array([1, 2]))
    assert list(made) == list(inputs)
    assert made["input_ids"].tolist() == [[1], [2]]
    assert made["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert made["position_ids"].tolist() == [[3], [1]]
    assert made["past_key_values.0.key"] is outputs["present.0.key"]
    with pytest.raises(ValueError, match="token_type_ids"):
        next_inputs({**inputs, "token_type_ids": inputs["input_ids"]}, outputs, np.array([1, 2]))


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MEMINFO = {"proc/meminfo": "MemTotal:  8000 kB\nMemAvailable:    5000 kB\n"}


def test_memory_is_the_machines_where_no_group_limits_it(tmp_path: Path) -> None:
    _write(tmp_path, {**MEMINFO, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"})
    assert available_bytes(tmp_path) == 5000 * 1024


def test_memory_is_what_a_container_leaves(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            **MEMINFO,
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "1000000\n",
            "sys/fs/cgroup/memory.current": "700000\n",
            "sys/fs/cgroup/memory.stat": "anon 500000\nfile 200000\nactive_file 40000\ninactive_file 60000\n",
        },
    )
    assert available_bytes(tmp_path) == 1000000 - 700000 + 100000


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/outer"
    _write(
        tmp_path,
        {
            **MEMINFO,
            "proc/self/cgroup": "4:memory:/outer/inner\n3:cpu:/elsewhere\n0::/\n",
            f"{group}/memory.limit_in_bytes": "300000\n",
            f"{group}/memory.usage_in_bytes": "100000\n",
            f"{group}/memory.stat": "inactive_file 1\ntotal_inactive_file 5000\ntotal_active_file 0\n",
            f"{group}/inner/memory.limit_in_bytes": "9223372036854771712\n",
            f"{group}/inner/memory.usage_in_bytes": "100000\n",
            f"{group}/inner/memory.stat": "total_inactive_file 0\n",
        },
    )
    assert available_bytes(tmp_path) == 205000


def test_memory_may_not_be_known(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
