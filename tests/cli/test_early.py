"""Errors in options are said before anything heavy is imported, and name what was meant."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segzoo.cli.early import _fits
from segzoo.cli.option_index import option_index
from segzoo.errors import ConfigError
from segzoo.methods.registry import methods
from tests.cli.conftest import Segzoo
from tests.cli.test_expand import expanded

ROOT = Path(__file__).parents[2]
DOMAINS = {"source": "segzoo.data.PairedFolders", "target": None}


@pytest.mark.fault("mistyped-option")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--method joint --method.learning_rate 1", "'--method.learning_rate'; did you mean '--optimizer.lr'?"),
        ("--method joint --learning_rate 1", "'--learning_rate'; did you mean '--optimizer.lr'?"),
        ("--method joint --max_steps 3", "'--max_steps'; did you mean '--trainer.max_steps'?"),
        ("--method joint --batch_size 3", "'--batch_size'; did you mean '--data.batch_size'?"),
        ("--method joint --trainer.batch_size 3", "'--trainer.batch_size'; did you mean '--data.batch_size'?"),
        ("--methd metapix", "'--methd'; did you mean '--method'?"),
        ("-method metapix", "'-method'; did you mean '--method'?"),
        ("--model metapix", "'--model'; did you mean '--method'?"),
        ("--method joint --method.encodr x", "'--method.encodr'; did you mean '--network.encoder'?"),
        ("--method joint --method.lr 1", "'--method.lr'; it is --optimizer.lr now"),
        ("--method joint --method.optimizer sgd", "'--method.optimizer'; it is --optimizer.name now"),
        ("--method joint --model.encoder resnet18", "'--model.encoder'; it is --network.encoder now"),
        ("--method joint --optimizer.encoder x", "'--optimizer.encoder'; did you mean '--network.encoder'?"),
        ("--method joint --lr 1", "'--lr'; did you mean '--optimizer.lr'?"),
        ("--method joint --backbone x", "'--backbone'; did you mean '--network.encoder'?"),
        ("--method gan --network.encodr x", "'--network.encodr'; "),
        ("--method joint --ckpt-path x", "'--ckpt-path'; did you mean '--ckpt_path'?"),
        ("--method joint --data.batch-size 2", "'--data.batch-size'; did you mean '--data.batch_size'?"),
        ("--method joint --epochs 3", "'--epochs'; did you mean '--trainer.max_steps'?"),
        ("--method joint --gpus 2", "'--gpus'; did you mean '--trainer.devices'?"),
        ("--method joint --workers 2", "'--workers'; did you mean '--data.num_workers'?"),
        ("--method joint --output x", "'--output'; did you mean '--runs'?"),
        ("--method joint --bs 2", "'--bs'; did you mean '--data.batch_size'?"),
        ("--method joint --method.weight_lr 2", "'--method.weight_lr'; did you mean '--method.weight'?"),
        ("--ckpt_path no.ckpt --max_steps 3", "'--max_steps'; did you mean '--trainer.max_steps'?"),
        ("--method joint --nonsense 3", "'--nonsense'; --help lists all options"),
        ("--method joint --data.source.masq x", "'--data.source.masq'; "),
        ("--method joint --data.source.init_args.domane x", "'--data.source.init_args.domane'; did you mean"),
    ],
)
def test_a_mistyped_option_names_the_one_that_was_meant(argv: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"unknown option {message}")):
        expanded("fit", *argv.split())


@pytest.mark.fault("mistyped-key")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("max_steps: 3", "unknown key 'max_steps' (in {}); did you mean 'trainer.max_steps'?"),
        (
            "optimizer: {learning_rate: 3}",
            "unknown key 'optimizer.learning_rate' (in {}); did you mean 'optimizer.lr'?",
        ),
        ("method: {lr: 3}", "unknown key 'method.lr' (in {}); it is 'optimizer.lr' now"),
        ("model: {norm: frozen}", "{}: the section 'model' is gone: 'model.norm' is 'network.norm' now"),
        ("trainer: {batch_size: 3}", "unknown key 'trainer.batch_size' (in {}); did you mean 'data.batch_size'?"),
        ("trainer: {logger: false}", "unknown key 'trainer.logger' (in {}); did you mean 'logger'?"),
        ("ckpt_path: a", "unknown key 'ckpt_path' (in {}); it is an option of the command line: --ckpt_path"),
        ("data: {size: {a: 1}}", "--data.size (in {}): expected two numbers"),
        ("trainer: {max_steps: many}", "--trainer.max_steps (in {}): expected int, found 'many'"),
        ("optimizer: {schedule: cosine}", "--optimizer.schedule (in {}): expected poly or constant, found 'cosine'"),
    ],
)
def test_a_mistyped_key_of_a_file_names_the_one_that_was_meant(segzoo: Segzoo, content: str, message: str) -> None:
    Path("own.yaml").write_text(content)
    result = segzoo("fit", "--method", "joint", "--config", "own.yaml", "--print_config")
    assert result.status == 2
    assert result.err.startswith(f"error: {message.format('own.yaml')}")


@pytest.mark.fault("option-error-after-imports")
def test_nothing_heavy_is_imported_for_an_error_in_options(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("data: {batch_size: [1]}")
    commands = [
        "fit --method metapix --method.wieght_lr 1",
        "fit --method metapix --optimizer.lr fast",
        "fit --method metapix --optimizer.lr",
        "fit --method metapix --trainer.max_steps 1.5",
        "fit --method metapix --method.update paperr",
        "fit --method metapix --data.flip maybe",
        "fit --method metapix --checkpoint_steps x",
        f"fit --method metapix --config {tmp_path / 'own.yaml'}",
        "test --ckpt_path no.ckpt --trainer.devcies 2",
        "compare --rows joint,metapix -- --trainer.max_step 3",
        "compare --rows a --variant 'a: joint --method.wieght 3'",
    ]
    code = (
        "import shlex, sys; from segzoo.cli.main import main\n"
        f"for command in {commands!r}: assert main(shlex.split(command)) == 2\n"
        "heavy = sorted({'torch', 'lightning', 'jsonargparse', 'numpy'} & set(sys.modules)); assert not heavy, heavy"
    )
    started = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(commands) and all(line.startswith("error: ") for line in lines), lines
    assert time.monotonic() - started < 10  # all of them; one took as long


@pytest.mark.fault("option-error-after-imports")
def test_the_index_has_every_option_that_the_parser_has(segzoo: Segzoo) -> None:
    for slug, info in methods().items():
        text = segzoo("fit", "--method", slug, "--help").out
        index = option_index(info.target, DOMAINS)
        names = set(re.findall(r"^  (?:-\w, )?--([\w.+]+)", text, re.MULTILINE)) - {"config", "print_config", "help"}
        assert len(names) > 80
        assert [name for name in names if not index.knows(name)] == []
    helped = segzoo("fit", "--method", "joint", "--data.source.help", "segzoo.data.PairedFolders").out
    options = re.findall(r"^  --(data\.source\.\w+)", helped, re.MULTILINE)
    assert "data.source.masks" in options
    assert all(option in index.kinds for option in options)


@pytest.mark.slow
@pytest.mark.fault("option-error-after-imports")
def test_what_the_index_refuses_the_parser_refuses_too(segzoo: Segzoo, monkeypatch: pytest.MonkeyPatch) -> None:
    index = option_index(methods()["metapix"].target, DOMAINS)
    monkeypatch.setattr("segzoo.cli.expand.check_options", lambda *_: None)
    values = ["x", "1.5", "true", "[1]", "nan", "-1"]
    for number, (name, kind) in enumerate(index.kinds.items()):
        refused = [value for value in values if not _fits(value, kind)]
        if kind.simple and refused and number % 2:
            value = refused[number % len(refused)]
            assert segzoo("fit", "--method", "metapix", f"--{name}={value}", "--print_config").status == 2, name


def test_a_plugins_options_are_left_to_the_parser() -> None:
    index = option_index("some_package.method:Method", {"source": "their.Images", "target": None})
    assert index.knows("method.anything") and index.knows("data.source.anything")
    assert not index.knows("trainer.anything") and not index.knows("data.anything")
