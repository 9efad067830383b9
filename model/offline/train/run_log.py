"""The state of a run that is kept on disk between epochs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np


class RunLog:
    """The history of a run, the state after its last complete epoch, and the weights of its best epoch.

    All of it is stored in `folder`, so that an interrupted run continues as if it had not been interrupted.
    """

    def __init__(self, folder: Path) -> None:
        self._history_path = folder / "history.json"
        self._state_path = folder / "state.npz"
        self.best_weights_path = folder / "best.weights.h5"
        self.history: list[dict[str, float]] = []
        if self._history_path.exists():
            self.history = json.loads(self._history_path.read_text())

    @property
    def best_epoch(self) -> int:
        """Index, from 0, of the epoch with the lowest `val_score`."""
        return min(range(len(self.history)), key=lambda epoch: self.history[epoch]["val_score"])

    def append(self, metrics: dict[str, float], model: keras.Model) -> None:
        """Add an epoch to the history, and save the weights of `model` if the epoch is the best so far."""
        self.history.append(metrics)
        if self.best_epoch == len(self.history) - 1:
            model.save_weights(self.best_weights_path)
        temporary = self._history_path.with_suffix(".temporary")
        temporary.write_text(json.dumps(self.history, indent=1) + "\n")
        temporary.replace(self._history_path)

    def save_state(self, model: keras.Model) -> None:
        """Save the weights and the optimiser after the last epoch of the history."""
        arrays = {str(index): np.asarray(variable) for index, variable in enumerate(_list_variables(model))}
        temporary = self._state_path.with_suffix(".temporary.npz")
        np.savez(temporary, allow_pickle=False, epochs=np.asarray(len(self.history)), **arrays)
        temporary.replace(self._state_path)

    def restore(self, model: keras.Model) -> None:
        """Load the saved state, if there is one, and cut the history to its epochs."""
        completed = 0
        if self._state_path.exists():
            with np.load(self._state_path) as state:
                for index, variable in enumerate(_list_variables(model)):
                    variable.assign(state[str(index)])
                completed = int(state["epochs"])
        del self.history[completed:]

    def remove_state(self) -> None:
        """Delete the state, which only a resumed run needs."""
        self._state_path.unlink(missing_ok=True)


def _list_variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]
