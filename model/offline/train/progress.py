"""The memory of a run: its history, its best weights, and when to stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras


class RunLog(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Append each epoch to `history.json`, keep the weights of the lowest validation loss, stop when it stalls.

    All its state is read back from the file, so that an interrupted run goes on as if it had not been.
    """

    def __init__(self, folder: Path, patience: int) -> None:
        super().__init__()
        self._history_path = folder / "history.json"
        self.best_weights_path = folder / "best.weights.h5"
        self._patience = patience
        self.history: list[dict[str, float]] = []
        if self._history_path.exists():
            self.history = json.loads(self._history_path.read_text())

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # An interruption between the log and the checkpoint repeats an epoch.
        del self.history[epoch:]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        if self.best_epoch == epoch:
            self.model.save_weights(self.best_weights_path)
        draft = self._history_path.with_suffix(".draft")
        draft.write_text(json.dumps(self.history, indent=1) + "\n")
        draft.replace(self._history_path)
        if epoch - self.best_epoch >= self._patience:
            self.model.stop_training = True

    @property
    def best_epoch(self) -> int:
        """Index of the epoch with the lowest validation loss."""
        return min(range(len(self.history)), key=lambda epoch: self.history[epoch]["val_loss"])
