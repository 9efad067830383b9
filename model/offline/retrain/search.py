"""Search hyper-parameters with Hyperband (Li et al., 2018) from Keras Tuner, within a time budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from model.errors import KerasProcessFailed
from model.offline.retrain import TRAINED_PARTS, RetrainOptions, read_choice
from model.offline.retrain.budget import Budget
from model.offline.retrain.tail import TailTraining
from model.offline.retrain.trials import Trial

SCORE = "val_score"  # the mean of the log losses on clean and on changed validation images; lower is better
_SHARE = 0.5  # the share of the budget after which no trial starts
_MAX_EPOCHS = 6
_WEIGHTS = "tail.weights.h5"


def search(folder: Path, training: TailTraining, options: RetrainOptions, budget: Budget) -> list[Trial]:
    """Run trials until the search's share of the budget is spent. Returns all of them, the best one first.

    After an interruption, the search continues in `folder` and repeats the interrupted trial. Raises
    KerasProcessFailed if no trial succeeds.
    """
    oracle = _BudgetedHyperband(budget, options.seed)
    oracle.max_trials = options.trials
    tuner = _Tuner(training, budget, oracle=oracle, directory=str(folder), project_name="trials")
    tuner.search(verbose=0)
    finished = [trial for trial in oracle.trials.values() if trial.status == TrialStatus.COMPLETED]
    if not finished:
        raise KerasProcessFailed("No trial of the search succeeded. The messages above say why.")
    return [_describe(trial) for trial in sorted(finished, key=lambda trial: float(trial.score))]


class _BudgetedHyperband(keras_tuner.oracles.HyperbandOracle):  # type: ignore[misc]  # keras_tuner is untyped
    """Hyperband that starts no trial after the search's share of the budget is spent, except the first one."""

    def __init__(self, budget: Budget, seed: int) -> None:
        super().__init__(
            objective=keras_tuner.Objective(SCORE, "min"),
            max_epochs=_MAX_EPOCHS,
            hyperband_iterations=1000,  # the budget ends the search
            hyperparameters=_define_space(),
            seed=seed,
        )
        self._budget = budget

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if self.end_order and self._budget.remaining_s(_SHARE) <= 0:
            return {"status": TrialStatus.STOPPED}
        values: dict[str, Any] = super().populate_space(trial_id)
        return values


class _Tuner(keras_tuner.Tuner):  # type: ignore[misc]  # keras_tuner is untyped
    def __init__(self, training: TailTraining, budget: Budget, **options: Any) -> None:
        self._training = training
        self._budget = budget
        super().__init__(**options)

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        values = trial.hyperparameters.values
        earlier = values.get("tuner/trial_id")
        return self._training.run_trial(
            read_choice(values),
            range(values["tuner/initial_epoch"], values["tuner/epochs"]),
            load=Path(self.get_trial_dir(earlier)) / _WEIGHTS if earlier else None,
            save=Path(self.get_trial_dir(trial.trial_id)) / _WEIGHTS,
        )

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)
        self._budget.save()
        if trial.status != TrialStatus.COMPLETED:
            print(f"Trial {trial.trial_id} failed: {trial.message}", flush=True)
            return
        ended = _describe(self.oracle.get_trial(trial.trial_id))
        print(
            f"Trial {ended.name}: {ended.epochs} epochs, score {ended.results[SCORE]:.4f}, accuracy "
            f"{ended.results['val_accuracy']:.4f}; {self._budget}.",
            flush=True,
        )


def _define_space() -> keras_tuner.HyperParameters:
    space = keras_tuner.HyperParameters()
    space.Float("learning_rate", 1e-5, 1e-3, sampling="log")
    space.Choice("label_smoothing", [0.0, 0.05, 0.1])
    space.Float("weight_decay", 1e-3, 1e-1, sampling="log")
    space.Choice("dropout", [0.2, 0.3, 0.4, 0.5])
    space.Choice("trained_from", list(TRAINED_PARTS))
    return space


def _describe(trial: Any) -> Trial:
    values = trial.hyperparameters.values
    results = {name: float(trial.metrics.get_best_value(name)) for name in trial.metrics.metrics}
    return Trial(trial.trial_id, values["tuner/epochs"], read_choice(values), results)
