"""What a run keeps on disk between epochs, and when it stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras


class RunLog(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Append each epoch to `history.json` and save the weights of the epoch with the lowest validation loss.

    Stops the run when that loss has not improved for `patience` epochs. All state is read back from the file, so an
    interrupted run continues as if it had not been interrupted.
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
        # After an interruption between the log and the checkpoint, Keras repeats an epoch that is already in the log.
        del self.history[epoch:]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        if self.best_epoch == epoch:
            self.model.save_weights(self.best_weights_path)
        temporary = self._history_path.with_suffix(".temporary")
        temporary.write_text(json.dumps(self.history, indent=1) + "\n")
        temporary.replace(self._history_path)
        if epoch - self.best_epoch >= self._patience:
            self.model.stop_training = True

    @property
    def best_epoch(self) -> int:
        """Index, from 0, of the epoch with the lowest validation loss."""
        return min(range(len(self.history)), key=lambda epoch: self.history[epoch]["val_loss"])
