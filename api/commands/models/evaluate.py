"""`atalaya evaluate`: how well a model predicts labelled images."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from api.commands.options.model import ModelOption, choose_backend_url
from api.commands.output import JsonFlag, print_json, print_table, progress_bar
from model.backends.open import open_backend
from model.offline.dataset import find_evaluation_folder, list_images
from model.offline.evaluate import evaluate as evaluate_backend
from monitoring.cgroups import count_processors


def evaluate(data: Annotated[Path, typer.Option()], model: ModelOption = None, as_json: JsonFlag = False) -> None:
    """Evaluate a model on the labelled images in DATA/test, or in DATA if there is no DATA/test."""
    with closing(open_backend(choose_backend_url(model))) as backend:
        files = list_images(find_evaluation_folder(data), backend.info.classes)
        with progress_bar("Evaluating", len(files)) as advance:
            results = evaluate_backend(backend, files, advance, threads=count_processors())
        name = backend.info.full_name
    if as_json:
        print_json({"model": name, **results.as_dict()})
        return
    metrics = (results.accuracy, results.macro_f1, results.loss, results.ece)
    row = (name, str(results.n), *(f"{value:.4f}" for value in metrics))
    print_table(("model", "images", "accuracy", "macro F1", "loss", "ECE"), [row])
