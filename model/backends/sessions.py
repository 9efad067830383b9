"""ONNX Runtime's sessions: how the gateway opens them, from an artefact's graph or from a prepared copy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime

from model.backends.prepared.copies import GRAPH, WEIGHTS, PreparedCopy

_ERROR = 3  # a level of the runtime's own log


def open_sessions(graph: bytes, count: int) -> list[Any]:
    """Open `count` sessions of a graph in ONNX format. ONNX Runtime's errors have no common base class."""
    return _open_together(lambda: open_session(graph, make_options()), count)


def open_prepared_sessions(copy: PreparedCopy, count: int) -> list[Any]:
    """Open `count` sessions that use the weights of `copy` where they are: it must outlive the sessions."""
    return _open_together(partial(_open_prepared, copy), count)


def write_optimised(graph: bytes, folder: Path) -> None:
    """Write the graph, optimised for this machine, and its weights, in the order that its kernels read, to `folder`."""
    options = make_options()
    options.log_severity_level = _ERROR  # a warning would say that the files fit this machine only
    options.optimized_model_filepath = str(folder / GRAPH)
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    open_session(graph, options)


def open_session(graph: bytes, options: Any) -> Any:
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    # The wrapper keeps the file to fall back to other providers. There are none, so free it.
    session._model_bytes = None
    return session


def make_options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Measured on EfficientNetB0: memory patterns take 9 MB and bring no speed; the arena saves 40 MB at the peak.
    options.enable_mem_pattern = False
    return options


def _open_prepared(copy: PreparedCopy) -> Any:
    options = make_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if copy.weights:
        # Without the first entry, each session would copy the weights. Given the buffer, the runtime opens no file.
        options.add_session_config_entry("session.use_external_initializer_file_buffers_directly", "1")
        options.add_external_initializers_from_files_in_memory([WEIGHTS], [copy.weights], [len(copy.weights)])
    return open_session(copy.graph, options)


def _open_together(open_one: Any, count: int) -> list[Any]:
    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(open_one) for _ in range(count)]]
