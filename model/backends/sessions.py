"""Open ONNX Runtime sessions from an artefact's graph or from a prepared copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime

from model.backends.engines import PACKAGES, Engine
from model.backends.prepared.copies import GRAPH, WEIGHTS, PreparedCopy
from model.backends.priority import lower_priority
from model.errors import EngineMissing

T = TypeVar("T")

NUMPY_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
"""The input types of graphs by the runtime's names for them. Graphs of earlier releases take float32."""

# In TF32, the probabilities of an image differ by 5e-4 between a batch and the image alone, and inference is no faster.
_OPTIONS = {Engine.CUDA: {"use_tf32": "0"}}
_ERROR = 3  # a level of the runtime's own log


def open_sessions(graph: bytes, count: int, engine: Engine = Engine.CPU) -> list[Any]:
    """Open `count` sessions of a graph in ONNX format.

    Raises EngineMissing, and ONNX Runtime's errors, which have no common base class.
    """
    return _run_together([lambda: open_session(graph, make_options(), engine)] * count)


def open_prepared_sessions(copy: PreparedCopy, cores: Sequence[int]) -> list[Any]:
    """Open a session for each number of cores. All use the weights of `copy` in place: it must outlive the sessions."""
    return _run_together([partial(_open_prepared, copy, count) for count in cores])


def write_optimised(graph: bytes, folder: Path) -> None:
    """Write the graph, optimised for this machine, and its weights, prepacked for the kernels, to `folder`."""
    options = make_options()
    options.log_severity_level = _ERROR  # suppresses the warning that the files fit only this machine
    options.optimized_model_filepath = str(folder / GRAPH)
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    open_session(graph, options)


def open_session(graph: bytes, options: Any, engine: Engine = Engine.CPU) -> Any:
    """Open a session. Raises EngineMissing if the engine is unavailable; the runtime would fall back to the CPU."""
    if engine not in onnxruntime.get_available_providers():
        raise EngineMissing(
            f"The installed ONNX Runtime has no {engine}. Install {PACKAGES[engine]} in place of onnxruntime, or use "
            "onnx://."
        )
    session = onnxruntime.InferenceSession(graph, options, providers=[(engine, _OPTIONS.get(engine, {}))])
    if engine not in session.get_providers():
        raise EngineMissing(f"ONNX Runtime cannot start {engine}. Check the driver and its libraries, or use onnx://.")
    # The Python wrapper keeps the graph so that it can fall back to other providers. There are none, so free it.
    session._model_bytes = None
    return session


def release_memory(session: Any) -> None:
    """Free the memory for intermediate values, which the next run allocates again.

    The runtime frees it only at the end of a run, so this makes a run without images, which takes a millisecond.
    """
    with suppress(Exception):  # if the graph cannot compute an empty batch, its memory stays allocated
        _run_and_release(session, images=0)


def make_options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # With a memory plan, all weights would be in one block, so the originals of prepacked weights could not be freed.
    options.enable_mem_pattern = False
    return options


def _open_prepared(copy: PreparedCopy, cores: int) -> Any:
    if cores > 1:
        lower_priority()  # the session's own threads inherit the priority of the thread that opens it
    options = make_options()
    options.intra_op_num_threads = cores
    # A thread that waits for the next operator would otherwise keep its core from requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = True
    if copy.weights:
        # Without the first entry, each session would copy the weights. With the buffer, the runtime opens no file.
        options.add_session_config_entry("session.use_external_initializer_file_buffers_directly", "1")
        options.add_external_initializers_from_files_in_memory([WEIGHTS], [copy.weights], [len(copy.weights)])
    session = open_session(copy.graph, options)
    _plan_memory(session)
    return session


def _plan_memory(session: Any) -> None:
    """Have the session plan one block of memory for the intermediate values of one image, for all later runs.

    It plans from the first run, whose own memory is freed here. Measured on EfficientNetB0: 17 MB instead of 20 MB
    without a plan, or 29 MB if the first run's memory stays, and inference takes 2 % less time.
    """
    _run_and_release(session, images=1)


def _run_and_release(session: Any, images: int) -> None:
    """Compute blank images, then free all memory for intermediate values."""
    (entry,) = session.get_inputs()
    shape = [side if isinstance(side, int) else images for side in entry.shape]
    options = onnxruntime.RunOptions()
    arenas = "cpu:0;gpu:0" if Engine.CUDA in session.get_providers() else "cpu:0"
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arenas)
    session.run(None, {entry.name: np.zeros(shape, NUMPY_TYPES[entry.type])}, options)


def _run_together(actions: Sequence[Callable[[], T]]) -> list[T]:
    """Run each action in its own thread and return the results. Raises the first error."""
    with ThreadPoolExecutor(len(actions)) as threads:
        return [future.result() for future in [threads.submit(action) for action in actions]]
