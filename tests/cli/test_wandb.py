"""What wandb and TensorBoard cannot do does not cost a training."""

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from segzoo.errors import ConfigError
from segzoo.loggers.careful import CarefulTensorBoard, CarefulWandb
from segzoo.loggers.create import create_loggers
from segzoo.loggers.wandb_mode import SERVERS, answers, server, wandb_mode
from tests import tiny
from tests.cli.conftest import Segzoo

KEY = "a1" * 20


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is logged in."""
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def foreign() -> Iterator[str]:
    """The address of a server that answers, and is not wandb's."""

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


@pytest.fixture
def closed() -> str:
    """The address of nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.fault("wandb-mode")
@pytest.mark.parametrize(
    ("mode", "key", "expected"),
    [
        (None, None, "offline"),
        (None, KEY, "online"),
        ("", None, "offline"),
        (" ", KEY, "online"),
        ("online", KEY, "online"),
        ("run", KEY, "online"),
        ("shared", KEY, "shared"),
        ("offline", KEY, "offline"),
        ("dryrun", None, "offline"),
        ("disabled", KEY, "disabled"),
    ],
)
def test_the_mode_is_what_the_variables_say(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, key: str | None, expected: str
) -> None:
    for name, value in (("WANDB_MODE", mode), ("WANDB_API_KEY", key)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert wandb_mode() == expected


@pytest.mark.fault("wandb-mode")
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WANDB_MODE": "online"}, "WANDB_MODE=online needs an account: set WANDB_API_KEY"),
        ({"WANDB_MODE": "shared"}, "WANDB_MODE=shared needs an account"),
        ({"WANDB_MODE": "ofline"}, "unknown WANDB_MODE 'ofline'; did you mean 'offline'?"),
        ({"WANDB_BASE_URL": "127.0.0.1:80"}, "WANDB_BASE_URL '127.0.0.1:80': expected an address such as https://"),
    ],
)
def test_what_wandb_would_refuse_is_one_line_before_anything_else(
    segzoo: Segzoo, toy: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = segzoo("fit", "--method", "source-only", "--data", toy, "--logger", "wandb")
    assert result.status == 2 and result.err.startswith(f"error: {message}") and result.err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_login_is_one_at_the_server_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_mode() == "offline" and server() in SERVERS
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode() == "online"
    (tmp_path / ".config" / "wandb").mkdir(parents=True)
    (tmp_path / ".config" / "wandb" / "settings").write_text("[default]\nbase_url = http://own.example:8080\n")
    assert (wandb_mode(), server()) == ("offline", "http://own.example:8080")
    (tmp_path / ".netrc").write_text("machine own.example:8080 login user password secret\n")
    assert wandb_mode() == "online"


@pytest.mark.fault("wandb-server-unreachable")
def test_a_server_that_is_not_there_is_known_within_seconds(closed: str, silent: str, foreign: str) -> None:
    assert not answers(closed) and not answers(silent, 0.3) and answers(foreign)


@pytest.mark.fault("wandb-server-unreachable")
def test_a_run_without_a_server_is_logged_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], closed: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", closed)
    monkeypatch.setenv("WANDB_MODE", "")
    started = time.monotonic()
    wandb = create_loggers("wandb", tmp_path, {})[1]
    assert isinstance(wandb, CarefulWandb) and wandb._wandb_init["mode"] == "offline"
    assert time.monotonic() - started < 6 and "WANDB_MODE" not in os.environ
    assert capsys.readouterr().err == (
        f"warning: wandb: {closed} does not answer; the run is logged offline, send it later with "
        f"`wandb sync {tmp_path}/wandb/offline-run-*`\n"
    )
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert len(create_loggers("wandb", tmp_path, {})) == 1


@pytest.mark.fault("wandb-server-unreachable")
def test_a_server_that_refuses_makes_the_run_one_offline_and_a_bad_key_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], foreign: str
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_BASE_URL", foreign)
    monkeypatch.setenv("WANDB_API_KEY", "short")
    try:
        with pytest.raises(ConfigError, match=r"wandb: WANDB_API_KEY invalid: .*; or set WANDB_MODE=offline"):
            _ = CarefulWandb(tmp_path, "online", {}).experiment
        wandb.teardown()
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        logger = CarefulWandb(tmp_path, "online", {"a": 1})
        logger.log_metrics({"loss": 1.0}, 0)
        assert logger.experiment.settings._offline
        wandb.finish()
    finally:
        wandb.teardown()
    assert "the run is logged offline, send it later with `wandb sync" in capfd.readouterr().err
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.fault("wandb-server-slow")
def test_a_server_that_takes_calls_and_answers_none_makes_the_run_one_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import wandb

    asked, over = threading.Event(), threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            asked.set()
            over.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as serving:
        serving.daemon_threads = True
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{serving.server_address[1]}"
        for name, value in (("BASE_URL", address), ("API_KEY", KEY), ("INIT_TIMEOUT", "1")):
            monkeypatch.setenv(f"WANDB_{name}", value)
        try:
            logger = create_loggers("wandb", tmp_path, {})[1]
            started = time.monotonic()
            logger.log_metrics({"loss": 1.0}, 0)
            waited = time.monotonic() - started
            assert isinstance(logger, CarefulWandb) and logger.experiment.settings._offline and asked.is_set()
            wandb.finish()
        finally:
            over.set()
            wandb.teardown()
            serving.shutdown()
    assert waited < 30  # of which one second is the server's, and the rest a busy machine's
    assert "the run is logged offline, send it later with" in capfd.readouterr().err


@pytest.mark.fault("wandb-dies")
def test_a_training_outlives_wandb(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logger = CarefulWandb(tmp_path, "offline", {})
    logger.log_metrics({"loss": 1.0}, 0)
    service = [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if b"wandb-core" in (folder / "cmdline").read_bytes()
        and f"PPid:\t{os.getpid()}\n" in (folder / "status").read_text()
    ]
    assert len(service) == 1
    os.kill(service[0], signal.SIGKILL)
    time.sleep(0.2)
    trained = tiny.fit("source-only", 2, trainer_options={"logger": logger})
    logger.log_image("panel", ["no such file"], step=2)
    assert trained.trainer.global_step == 2 and logger.failed
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(said) == 1 and said[0].startswith("warning: wandb stopped: ")
    assert said[0].endswith("; the training goes on, metrics.csv has all numbers")
    after = CarefulWandb(tmp_path / "next", "offline", {})
    try:
        after.log_metrics({"loss": 2.0}, 0)
        assert not after.failed and after.id_file.exists()
    finally:
        after.give_up()


@pytest.mark.fault("tensorboard-cannot-write")
def test_a_training_outlives_tensorboard(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    board = CarefulTensorBoard(save_dir=str(tmp_path / "file"), name="tensorboard", version="")
    assert tiny.fit("source-only", 2, trainer_options={"logger": board}).trainer.global_step == 2
    assert capfd.readouterr().err.count("warning: TensorBoard stopped: ") == 1
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    board = CarefulTensorBoard(save_dir=str(tmp_path), name="tensorboard", version="")
    board.log_metrics({"loss": 1.0}, 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        for step in range(100):
            board.log_metrics({f"loss {step}": 1.0}, step)
        board.save()
        board.finalize("success")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capfd.readouterr().err
    assert said.count("warning: TensorBoard stopped: ") == 1 and "Traceback" not in said
