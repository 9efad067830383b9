"""One small training run, shared by the tests of training and of the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.offline.train.toy_run import Resumed, train_twice, write_data


@pytest.fixture(scope="session")
def resumed(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    data = write_data(tmp_path_factory.mktemp("data"))
    return train_twice(data, backbone, tmp_path_factory.mktemp("runs") / "toy")
