"""The command line: results on standard output, errors as one line, and exit statuses."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import structlog
import tifffile
from PIL import Image

from api.cli import run
from api.commands import group
from api.production import find_start_problems
from api.settings import load_settings
from auth.tokens.jws import generate_signing_key
from tests.support.gateway import PASSWORD, Gateway, create_database
from tests.support.images.geotiffs import MODEL_TYPE, PROJECTED, describe_system, georeference
from tests.support.paths import ATALAYA
from tests.support.polling import wait_until

Command = Callable[..., int]

PREDICTED = {
    "image",
    "label",
    "probability",
    "raw_probability",
    "abstained",
    "reason",
    "bit_depth",
    "scaling",
    "ground_resolution_m",
    "warnings",
    "model",
}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run a command in an empty directory, with the stub back end and a signing key."""
    monkeypatch.chdir(tmp_path)
    create_database(f"sqlite:///{tmp_path}/var/atalaya.db")
    monkeypatch.setenv("MODEL__URL", "stub://")
    monkeypatch.setenv("AUTH__SIGNING_KEY", generate_signing_key("ES256"))

    def run_with_input(*arguments: str, stdin: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        return run(list(arguments))

    return run_with_input


def save_image(path: Path, color: str = "green") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), color).save(path)
    return path


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["users", "add"], ["users", "add", "ana", "--role", "king"], ["predict"], ["serve", "--port", "x"]],
)
def test_usage_error(command: Command, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """A usage error gives exit status 2 and one line on standard error."""
    assert command(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1


def test_an_unknown_choice(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid value of an option is an error that lists the accepted values."""
    assert command("report", "--quarter", "2026Q3", "--lang", "fr") == 2
    assert capsys.readouterr().err == "error: Invalid value for '--lang': 'fr' is not one of 'en', 'es'.\n"


@pytest.mark.parametrize("name", [name for name, (target, _) in group.COMMANDS.items() if target.endswith(":app")])
def test_a_list_of_commands_says_what_each_does(
    name: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """The help of each command group shows the descriptions of its commands in full."""
    assert command(name, "--help") == 0
    lines = capsys.readouterr().out.partition("Commands:")[2].splitlines()
    assert [line for line in lines if line.endswith("...")] == []


def log_and_print() -> None:
    """A command that logs and prints its result."""
    log = structlog.get_logger("atalaya.test")
    log.info("not_shown")
    log.warning("shown")
    print("{}")


def test_logs_do_not_mix_with_the_result(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output has only the result; standard error has the log entries from level warning up."""
    monkeypatch.setattr(group, "COMMANDS", {"noisy": (f"{__name__}:log_and_print", "Log and print.")})
    before = structlog.get_config()
    assert run(["noisy"]) == 0
    output, errors = capsys.readouterr()
    assert output == "{}\n"
    assert ("not_shown" in errors, "shown" in errors) == (False, True)
    assert structlog.get_config() == before


def test_user_life_cycle(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """A user is added, listed, given another password and disabled, after which the user gets no token."""
    assert command("users", "add", "ana", "--role", "client", "--password-stdin", stdin=PASSWORD) == 0
    capsys.readouterr()
    assert command("users", "list", "--json") == 0
    (user,) = json.loads(capsys.readouterr().out)
    assert (user["name"], user["role"], user["disabled_at"]) == ("ana", "client", None)
    assert command("users", "passwd", "ana", "--password-stdin", stdin=f"{PASSWORD} staple\n") == 0
    capsys.readouterr()
    assert command("token", "--user", "ana", "--password-stdin", stdin=PASSWORD) == 1
    assert "wrong" in capsys.readouterr().err
    assert command("token", "--user", "ana", "--password-stdin", stdin=f"{PASSWORD} staple") == 0
    assert capsys.readouterr().out.count(".") == 2
    assert command("users", "disable", "ana", "--json") == 0
    assert json.loads(capsys.readouterr().out)["disabled_at"]
    assert command("token", "--user", "ana", "--password-stdin", stdin=f"{PASSWORD} staple") == 1


def test_user_table(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json, `users list` prints a table."""
    command("users", "add", "ana", "--role", "auditor", "--password-stdin", stdin=PASSWORD)
    assert capsys.readouterr().out == "ana (auditor): added.\n"
    assert command("users", "list") == 0
    assert "auditor" in capsys.readouterr().out


def test_db_init_announces_the_first_user(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """`db init` says that the first start adds the user admin, unless the database already has users."""
    assert command("db", "init") == 0
    assert capsys.readouterr().out.endswith(
        "atalaya.db is ready. The first start of the gateway adds the user admin.\n"
    )
    assert command("users", "add", "ana", "--role", "client", "--password-stdin", stdin=PASSWORD) == 0
    capsys.readouterr()
    assert command("db", "init") == 0
    assert capsys.readouterr().out.endswith("atalaya.db is ready.\n")


def test_rejected_password(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """A weak password fails with one line that does not contain it."""
    assert command("users", "add", "ana", "--role", "client", "--password-stdin", stdin="tooshort") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "tooshort" not in error


def test_token_needs_a_signing_key(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a signing key, `token` fails and names the setting."""
    monkeypatch.delenv("AUTH__SIGNING_KEY")
    assert command("token", "--user", "ana", "--password-stdin", stdin=PASSWORD) == 1
    assert "AUTH__SIGNING_KEY" in capsys.readouterr().err


def test_secrets_init(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`secrets init` adds working keys to a private .env, and never replaces one."""
    monkeypatch.delenv("AUTH__SIGNING_KEY")
    file = tmp_path / ".env"
    file.write_text("PORT=8001\nAUTH__SIGNING_KEY=")
    assert command("secrets", "init") == 0
    written = file.read_text()
    assert written.startswith("PORT=8001\n")
    assert written.count("AUTH__SIGNING_KEY") == written.count("AUTH__DATA_KEY") == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert command("secrets", "init") == 0
    assert file.read_text() == written
    file.write_text(re.sub("AUTH__DATA_KEY=.*\n", "", written))
    assert command("secrets", "init") == 0
    assert file.read_text().startswith(written.partition("AUTH__DATA_KEY=")[0])
    command("users", "add", "ana", "--role", "client", "--password-stdin", stdin=PASSWORD)
    assert command("token", "--user", "ana", "--password-stdin", stdin=PASSWORD) == 0


def test_printed_secrets_are_all_that_a_gateway_needs(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`secrets print` needs no secret, and prints a .env whose settings are enough to start a gateway."""
    for name in ("AUTH__SIGNING_KEY", "LEDGER__SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert command("secrets", "print") == 0
    (tmp_path / ".env").write_text(capsys.readouterr().out)
    settings = load_settings(find_start_problems)
    assert settings.auth.data_key is not None


def test_predict(command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`predict` classifies local images without a gateway, and prints JSON or a table."""
    image = save_image(tmp_path / "a.png")
    assert command("predict", str(image), "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert set(result) == PREDICTED
    assert (result["abstained"], result["reason"]) == (False, None)
    assert result["raw_probability"] == result["probability"]  # the stub is not calibrated
    assert command("predict", str(image)) == 0
    assert result["label"] in capsys.readouterr().out


def test_predict_warns_of_coarse_images(command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A ground resolution that does not fit the model is reported on standard error or, with --json, in the result."""
    image = tmp_path / "coarse.tif"
    tags = [*georeference(10.0), *describe_system({MODEL_TYPE: PROJECTED})]
    tifffile.imwrite(image, np.zeros((256, 256, 3), np.uint8), photometric="rgb", metadata=None, extratags=tags)
    assert command("predict", str(image)) == 0
    output = capsys.readouterr()
    assert "coarse.tif: A pixel of the scaled image covers 10 m on the ground" in output.err
    assert "on the ground" not in output.out
    assert command("predict", str(image), "--json") == 0
    output = capsys.readouterr()
    (result,) = json.loads(output.out)
    assert (result["bit_depth"], result["scaling"], result["ground_resolution_m"]) == (8, "none", 10)
    assert [warning["code"] for warning in result["warnings"]] == ["ground_resolution"]
    assert output.err == ""


def test_predict_reports_failed_images(command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """If one image fails, `predict` still prints the others, and exits with 1."""
    image = save_image(tmp_path / "a.png")
    assert command("predict", str(image), str(tmp_path / "missing.png"), "--json") == 1
    output = capsys.readouterr()
    assert [set(result) for result in json.loads(output.out)] == [PREDICTED, {"image", "error"}]
    assert output.err.startswith("error: 1 of 2 images failed")


def test_predict_rejects_a_large_file(command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file above the limit of an image is reported as such, even if it does not fit into memory."""
    large = tmp_path / "large.tif"
    large.touch()
    os.truncate(large, 1 << 40)
    assert command("predict", str(large), str(save_image(tmp_path / "a.png"))) == 1
    assert f"large.tif: The image has {1 << 40} bytes; the limit is 20000000." in capsys.readouterr().err


def test_classify_without_a_gateway(command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`classify` fails when the gateway cannot be reached, and names its URL."""
    image = save_image(tmp_path / "a.png")
    assert command("classify", "--url", "http://127.0.0.1:1", "--token", "x", str(image)) == 1
    assert capsys.readouterr().err.startswith("error: http://127.0.0.1:1 cannot be reached: ")


def test_demo_fails_in_production(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo does not run in production, because it resets a user's password."""
    monkeypatch.setenv("ENVIRONMENT", "production")
    assert command("demo") == 1
    assert "production" in capsys.readouterr().err


def test_the_kernel_ends_a_command_before_the_gateway(gateway: Gateway, tmp_path: Path) -> None:
    """If memory runs out, the kernel kills a command first; the gateway keeps the OOM score of its parent."""

    def read_score(pid: int | str) -> str:
        return Path(f"/proc/{pid}/oom_score_adj").read_text().strip()

    reading = [str(ATALAYA), "--debug", "users", "add", "eve", "--role", "client", "--password-stdin"]
    with subprocess.Popen(reading, stdin=subprocess.PIPE, cwd=tmp_path) as waiting:
        try:
            wait_until(lambda: read_score(waiting.pid) == "1000")
        finally:
            waiting.kill()
    assert read_score(gateway.pid) == read_score("self")
