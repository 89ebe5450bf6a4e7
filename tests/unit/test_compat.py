"""Private and undocumented names of other libraries: each is there, does what we use it for, and stays in `compat`."""

import argparse
import inspect
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonargparse
import lightning as L
import pytest
import torch
import torch.autograd.forward_ad as fwAD
import torch.distributed as dist
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from segzoo.compat import networks, parsers, tensors, training

CHECKS: dict[str, tuple[str, Callable[..., None]]] = {}


def name(name: str, purpose: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a check the test of a foreign name; the purpose is what fails without it."""

    def add(check: Callable[..., None]) -> Callable[..., None]:
        CHECKS[name] = purpose, check
        return check

    return add


# torch


@name("torch._make_dual", "starts forward-mode derivatives without the checks of torch's own function")
def _(_: Path) -> None:
    with fwAD.dual_level():
        x = tensors.make_dual(torch.tensor([2.0]), torch.tensor([3.0]), level=0)
        assert fwAD.unpack_dual(x * x).tangent.tolist() == [12.0]


@name("torch._unpack_dual", "reads the result of forward-mode derivatives")
def _(_: Path) -> None:
    with fwAD.dual_level():
        x = fwAD.make_dual(torch.tensor([2.0]), torch.tensor([3.0]))
        value, tangent = tensors.unpack_dual(x, level=0)
        assert value.tolist() == [2.0] and tangent.tolist() == [3.0]
        assert tensors.unpack_dual(torch.ones(1), level=0)[1] is None


@name(
    "torch.autograd.forward_ad._current_level", "refuses the backward pass of a synchronised norm within a derivative"
)
def _(_: Path) -> None:
    assert not tensors.differentiates_forward()
    with fwAD.dual_level():
        assert tensors.differentiates_forward()
    assert not tensors.differentiates_forward()


def pair() -> tuple[list[Tensor], list[Tensor]]:
    return [torch.tensor([1.0]), torch.tensor([2.0, 3.0])], [torch.tensor([10.0]), torch.tensor([20.0, 30.0])]


def values(many: Any) -> list[list[float]]:
    return [t.tolist() for t in many]


@name("torch._foreach_add", "takes the virtual step of all parameters in few kernels")
def _(_: Path) -> None:
    assert values(tensors.add_all(*pair(), alpha=-0.5)) == [[-4.0], [-8.0, -12.0]]


@name("torch._foreach_add_", "adds the two gradients of a bilevel step in place")
def _(_: Path) -> None:
    a, b = pair()
    tensors.add_all_(a, b)
    assert values(a) == [[11.0], [22.0, 33.0]]


@name(
    "torch._foreach_mul", "scales gradients that were computed by hand, by a number or by the tensor of a loss scaler"
)
def _(_: Path) -> None:
    assert values(tensors.multiply_all(pair()[0], 2.0)) == [[2.0], [4.0, 6.0]]
    assert values(tensors.multiply_all(pair()[0], torch.tensor(2.0))) == [[2.0], [4.0, 6.0]]


@name("torch._foreach_div_", "brings the direction of a derivative to length one in place")
def _(_: Path) -> None:
    a, _b = pair()
    tensors.divide_all_(a, torch.tensor(2.0))
    assert values(a) == [[0.5], [1.0, 1.5]]


@name("torch._foreach_lerp_", "averages the teacher's parameters in few kernels")
def _(_: Path) -> None:
    a, b = pair()
    tensors.lerp_all_(a, b, 0.5)
    assert values(a) == [[5.5], [11.0, 16.5]]


@name("torch._foreach_norm", "gives the length of a gradient in few kernels")
def _(_: Path) -> None:
    assert [float(n) for n in tensors.norm_all([torch.tensor([3.0, 4.0]), torch.zeros(2)])] == [5.0, 0.0]


@name("torch.Tensor._version", "notices that an output that was kept was changed in place")
def _(_: Path) -> None:
    x = torch.zeros(2)
    before = tensors.change_count(x)
    assert tensors.change_count(x.detach()) == before
    x.add_(1)
    assert tensors.change_count(x) > before


@name("torch.nn.Module._compiled_call_impl", "runs a compiled network eagerly, where compiled code would lose tangents")
def _(_: Path) -> None:
    module = nn.Linear(1, 1)
    assert tensors.compiled_call(module) is None
    module.compile(backend=lambda graph, inputs: pytest.fail("the compiled call ran"))
    call = tensors.compiled_call(module)
    assert call is not None
    tensors.set_compiled_call(module, None)
    assert module(torch.ones(1)).shape == (1,)
    tensors.set_compiled_call(module, lambda x: "compiled")
    assert module(torch.ones(1)) == "compiled"


@name("torch.nn.Conv2d._conv_forward", "convolves a tangent as the layer would, padding of every kind included")
def _(_: Path) -> None:
    for mode in ("zeros", "reflect"):
        layer, x = nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode), torch.rand(1, 2, 5, 5)
        torch.testing.assert_close(tensors.conv_forward(layer, x, layer.weight, layer.bias), layer(x))


@name(
    "torch.nn.Conv2d._reversed_padding_repeated_twice", "pads what the moments of a convolution's inputs are taken of"
)
def _(_: Path) -> None:
    assert tensors.conv_padding(nn.Conv2d(1, 1, 3, padding=(1, 2))) == [2, 2, 1, 1]
    assert sum(tensors.conv_padding(nn.Conv2d(1, 1, 4, padding="same"))) == 6


@name(
    "torch.nn.modules.batchnorm._BatchNorm",
    "is what every batch norm is an instance of, synchronised ones and timm's too",
)
def _(_: Path) -> None:
    from timm.layers import BatchNormAct2d

    for norm in (nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2), BatchNormAct2d(2)):
        assert isinstance(norm, tensors.BatchNorm), type(norm)
    assert not isinstance(nn.GroupNorm(1, 2), tensors.BatchNorm)


@name("torch.nn.modules.batchnorm._BatchNorm._check_input_dim", "lets one batch norm take inputs of any dimension")
def _(_: Path) -> None:
    norm = tensors.AnyBatchNorm(2)
    assert norm(torch.rand(3, 2)).shape == (3, 2) and norm(torch.rand(3, 2, 4, 4)).shape == (3, 2, 4, 4)
    with pytest.raises(ValueError, match=r"expected \(B, C, ...\)"):
        norm(torch.rand(2))


@name("torch.nn.modules.dropout._DropoutNd", "is what every dropout is an instance of, to turn them off in a benchmark")
def _(_: Path) -> None:
    assert all(isinstance(layer, tensors.Dropout) for layer in (nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout()))


@name("torch.utils._pytree.tree_leaves", "finds the tensors in what a layer takes and returns")
def _(_: Path) -> None:
    assert tensors.tree_leaves({"a": [1, (2, None)], "b": 3}) == [1, 2, None, 3]


@name("torch.utils._pytree.tree_map_only", "detaches the tensors in what a layer returns, whatever holds them")
def _(_: Path) -> None:
    assert tensors.tree_map_only(int, lambda n: n + 1, {"a": [1, "x"]}) == {"a": [2, "x"]}


@name("torch.cuda.default_generators", "gives the passes of a captured CUDA graph their seeds")
def _(_: Path) -> None:
    assert len(torch.cuda.default_generators) == torch.cuda.device_count()
    for index in range(torch.cuda.device_count()):
        assert tensors.cuda_generator(torch.device("cuda", index)).device.index == index


# argparse and jsonargparse


@name("argparse.ArgumentParser._option_string_actions", "names the nearest option to one that a parser does not know")
def _(_: Path) -> None:
    parser = argparse.ArgumentParser()
    action = parser.add_argument("--size", "-s")
    assert parsers.options(parser)["--size"] is action and "-s" in parsers.options(parser)


@name("argparse.ArgumentParser._actions", "lists what a parser reads")
def _(_: Path) -> None:
    parser = argparse.ArgumentParser()
    assert parser.add_argument("--size") in parsers.actions(parser)


@name("argparse.ArgumentParser._action_groups", "hides the groups of a help that hold nothing to be shown")
def _(_: Path) -> None:
    parser = argparse.ArgumentParser()
    assert parser.add_argument_group("data") in parsers.groups(parser)


@name("argparse._ArgumentGroup._group_actions", "finds the options of a group of a help")
def _(_: Path) -> None:
    group = argparse.ArgumentParser().add_argument_group("data")
    action = group.add_argument("--size")
    assert list(parsers.group_actions(group)) == [action]


@name("jsonargparse.ActionTypeHint._typehint", "knows which options take null")
def _(_: Path) -> None:
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--size", type=int | None)
    parser.add_argument("--name", type=str)
    hints = {action.dest: parsers.type_hint(action) for action in parsers.actions(parser)}
    assert hints["size"] == int | None and hints["name"] is str


@name("jsonargparse.ArgumentParser.parse_object(_skip_validation)", "reads a file that lacks what a flag will give")
def _(_: Path) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--name", type=str, required=True)
    part = parsers.parse_part(parser, {"name": "a"}, None)
    assert parser.parse_args(["--size", "3"], parsers.parse_part(parser, {"name": "b"}, part)).as_dict() == {
        "size": 3,
        "name": "b",
    }


# segmentation_models_pytorch and timm


@name("segmentation_models_pytorch.MODEL_ARCHITECTURES_MAPPING", "lists the architectures by name")
def _(_: Path) -> None:
    import segmentation_models_pytorch as smp

    assert networks.architectures()["unet"] is smp.Unet and all(key == key.lower() for key in networks.architectures())


@name(
    "segmentation_models_pytorch.encoders.encoders",
    "refuses an encoder that does not exist with the nearest one that does",
)
def _(_: Path) -> None:
    assert {"resnet18", "mit_b2"} <= set(networks.encoders())


@name(
    "segmentation_models_pytorch.encoders.encoders[...]['pretrained_settings']",
    "names the weights that can be downloaded",
)
def _(_: Path) -> None:
    assert "imagenet" in networks.pretrained_names("resnet18") and networks.pretrained_names("absent") == []


@name("huggingface_hub.constants.HF_HUB_OFFLINE", "ends a download at once where there is no network")
def _(_: Path) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with networks.asking_no_absent_hub():
        assert constants.is_offline_mode() == constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE


@name("timm.layers.BatchNormAct2d.drop and act", "keeps the activation of a timm norm that is replaced")
def _(_: Path) -> None:
    from timm.layers import BatchNormAct2d

    _drop, act = networks.norm_tail(BatchNormAct2d(2))
    assert isinstance(act, nn.ReLU) and networks.norm_tail(nn.BatchNorm2d(2)) == []


# Lightning


class Look(L.LightningModule):
    """Calls a function at the end of every batch and of every validation."""

    def __init__(self, batch_end: Callable[[L.Trainer], None] = lambda trainer: None) -> None:
        super().__init__()
        self.layer, self.batch_end = nn.Linear(1, 1), batch_end
        self.validated: list[int] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.layer(batch).sum()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(self.trainer.global_step)

    def on_train_batch_end(self, *_: Any) -> None:
        self.batch_end(self.trainer)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **options: Any) -> L.Trainer:
    usual: dict[str, Any] = {"max_steps": 4, "logger": False, "num_sanity_val_steps": 0}
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return L.Trainer(**{**usual, **quiet, "accelerator": "cpu", "default_root_dir": folder, **options})


def fit(folder: Path, look: Callable[[L.Trainer], Any], **options: Any) -> tuple[list[Any], Look, L.Trainer]:
    """What a look at the trainer found at the end of each of the batches."""
    found: list[Any] = []
    module, run = Look(lambda t: found.append(look(t))), trainer(folder, **options)
    batches = DataLoader(torch.ones(8, 1), batch_size=1)
    run.fit(module, batches, DataLoader(torch.ones(1, 1)))
    return found, module, run


@name("Trainer._logger_connector.should_update_logs", "computes what is logged only where it is")
def _(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    assert fit(tmp_path, training.logs_this_step, logger=logger, log_every_n_steps=2)[0] == [False, True, False, True]


@name("Trainer._logger_connector.metrics", "writes a step's metrics before the checkpoint that continues after them")
def _(tmp_path: Path) -> None:
    rows = fit(tmp_path, training.step_metrics)[0]
    assert [set(row) for row in rows] == [{"loss"}] * 4 and all(type(row["loss"]) is float for row in rows)


@name("Trainer._results", "forgets what an earlier step logged and this one does not")
def _(tmp_path: Path) -> None:
    def forget(trainer: L.Trainer) -> tuple[list[tuple[str, bool]], set[str]]:
        found = [(value.meta.fx, value.meta.on_epoch) for value in training.logged_values(trainer)]
        for value in training.logged_values(trainer):
            value.reset()
        return found, set(training.step_metrics(trainer))

    assert not list(training.logged_values(trainer(tmp_path)))
    assert fit(tmp_path, forget)[0] == [([("training_step", False)], set())] * 4


@name(
    "fit_loop.epoch_loop._batches_that_stepped",
    "numbers the rows of metrics as Lightning numbers them, from a resume on too",
)
def _(tmp_path: Path) -> None:
    assert fit(tmp_path, training.steps_done)[0] == [0, 1, 2, 3]


@name("fit_loop.epoch_loop.batch_progress.total.processed", "goes on with the next batch after a resume")
def _(tmp_path: Path) -> None:
    found, _, run = fit(tmp_path, training.batches_done, accumulate_grad_batches=2)
    assert found == list(range(1, 9)) and training.batches_done(run) == 8


@name("fit_loop.epoch_progress.current", "tests a training after its end with the counters that it ended with")
def _(tmp_path: Path) -> None:
    _, _, run = fit(tmp_path, lambda trainer: None)
    epoch = run.current_epoch
    run.fit_loop.epoch_progress.current.completed -= 1
    run.fit_loop.epoch_loop._batches_that_stepped = 0
    training.count_as_ended(run)
    assert training.steps_done(run) == 4 and run.current_epoch == epoch


@name("fit_loop._should_accumulate", "stops between two steps of the optimiser, not within one")
def _(tmp_path: Path) -> None:
    found, _, _ = fit(tmp_path, training.accumulates, accumulate_grad_batches=2, max_steps=2)
    assert found == [True, False, True, False]


@name("Trainer._checkpoint_connector._get_loops_state_dict", "saves the state before a validation that is cut short")
def _(tmp_path: Path) -> None:
    (first, *_), _, _ = fit(tmp_path, training.loops_state)
    assert {"fit_loop", "validate_loop", "test_loop"} <= set(first)
    assert first["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == 1, (
        "a copy, which does not go on counting"
    )


@name("fit_loop.epoch_loop._should_check_val_fx", "knows which steps a validation follows")
def _(tmp_path: Path) -> None:
    assert fit(tmp_path, training.validation_is_due, val_check_interval=2)[0] == [False, True, False, True]


@name("fit_loop._data_fetcher", "knows that no validation is due before there are batches")
def _(tmp_path: Path) -> None:
    assert not training.validation_is_due(trainer(tmp_path))
    assert all(fit(tmp_path, lambda t: t.fit_loop._data_fetcher is not None)[0])


@name("fit_loop.epoch_loop.val_loop", "makes good, before the first step, a validation that was cut short")
def _(tmp_path: Path) -> None:
    class Late(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            training.validate_now(trainer)
            assert trainer.training

    def look(trainer: L.Trainer) -> int:
        return trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.processed

    found, module, _ = fit(tmp_path, look, val_check_interval=2, callbacks=[Late()])
    assert module.validated == [0, 2, 4] and found == [0, 0, 1, 1]


@name("Trainer._val_check_time_interval", "tells validations by the clock from those by numbers of batches")
def _(tmp_path: Path) -> None:
    assert training.validates_by_time(trainer(tmp_path, val_check_interval="00:01:00:00", check_val_every_n_epoch=None))
    assert not training.validates_by_time(trainer(tmp_path, val_check_interval=10))


@name(
    "Optimizer._step_supports_amp_scaling", "clips the gradients of a fused optimiser, and lets a scaler look at them"
)
def _(_: Path) -> None:
    optimizer: Any = torch.optim.AdamW(nn.Linear(2, 2).parameters(), fused=True)
    assert optimizer._step_supports_amp_scaling is True
    tensors.leave_scaling_to_scaler(optimizer)
    assert optimizer._step_supports_amp_scaling is False


@name("torch._C._cuda_endAllocateToPool", "gives memory back after a CUDA graph could not be captured")
def _(_: Path) -> None:
    assert callable(torch.cuda.memory._cuda_endAllocateToPool)
    assert torch._C._cuda_endAllocateToPool is torch.cuda.memory._cuda_endAllocateToPool


@name("_ResultMetric.has_reset", "empties the row of a step without waiting for the device that holds it")
def _(tmp_path: Path) -> None:
    collection = _ResultCollection(True)
    collection.log("training_step", "a", torch.tensor(1.0), on_step=True, on_epoch=False, reduce_fx=torch.mean)
    result = collection["training_step.a"]
    assert result.is_tensor and collection.metrics(on_step=True)["log"] == {"a": 1.0}
    result.has_reset = True
    assert collection.metrics(on_step=True)["log"] == {}
    collection.log("training_step", "a", torch.tensor(2.0), on_step=True, on_epoch=False, reduce_fx=torch.mean)
    assert collection.metrics(on_step=True)["log"] == {"a": 2.0}


@name("DistributedDataParallel.require_backward_grad_sync", "does not average gradients that are means already")
def _(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model, reduced, shared = DistributedDataParallel(nn.BatchNorm1d(2)), [], []

        def hook(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
            reduced.append(bucket.buffer().numel())
            done: torch.futures.Future[Tensor] = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        model.register_comm_hook(None, hook)
        model._sync_buffers = lambda: shared.append(1)  # type: ignore[method-assign]
        trainer: Any = SimpleNamespace(strategy=SimpleNamespace(model=model))
        for reduce in (False, False, True, False):
            training.reduce_gradients(trainer, reduce)
            model(torch.rand(3, 2)).sum().backward()
            training.reduce_gradients(trainer, True)
        assert reduced == [4] and len(shared) == 4
        assert all(p.grad is not None for p in model.parameters())
    finally:
        dist.destroy_process_group()


@name("LightningModule._trainer", "asks whether a module has a trainer without an error where it has none")
def _(tmp_path: Path) -> None:
    assert training.trainer_of(Look()) is None
    _, module, run = fit(tmp_path, lambda trainer: None)
    assert training.trainer_of(module) is run


@name("Trainer._accelerator_connector.use_distributed_sampler", "refuses samplers of Lightning's beside our own")
def _(tmp_path: Path) -> None:
    assert training.shards_data(trainer(tmp_path))
    assert not training.shards_data(trainer(tmp_path, use_distributed_sampler=False))


@name(
    "Trainer._signal_connector._sigterm_notifier_fn",
    "ends a training at SIGTERM without Lightning's collective in a handler",
)
def _(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    assert callable(run._signal_connector._sigterm_notifier_fn)
    training.ignore_sigterm(run)
    run._signal_connector._sigterm_notifier_fn(15, None)
    assert not run.received_sigterm


@name("Timer._duration", "says before the first step after which time a training ends")
def _(_: Path) -> None:
    assert training.time_limit(Timer(timedelta(minutes=2))) == 120.0 and training.time_limit(Timer(None)) is None


@name("subprocess_script._launch_process_observer", "ends the processes of a training together")
def _(_: Path) -> None:
    before = subprocess_script._launch_process_observer
    with training.observed_processes(print):
        assert subprocess_script._launch_process_observer is print
        assert "_launch_process_observer(self.procs)" in inspect.getsource(subprocess_script)
    assert subprocess_script._launch_process_observer is before


@name("Profiler._prepare_filename", "says where the profile is")
def _(tmp_path: Path) -> None:
    profiler = SimpleProfiler(dirpath=tmp_path, filename="profile")
    assert training.profile_name(profiler).endswith(".txt")


@name("Profiler._local_rank", "prints the profile of one process of several")
def _(tmp_path: Path) -> None:
    profiler = SimpleProfiler(dirpath=tmp_path, filename="profile")
    assert training.profiled_rank(profiler) == 0
    profiler.setup("fit", local_rank=1)
    assert training.profiled_rank(profiler) == 1


@name("WandbLogger._wandb_init", "goes on offline where the server cannot be reached")
def _(tmp_path: Path) -> None:
    logger = WandbLogger(project="one", save_dir=str(tmp_path), mode="disabled")
    training.wandb_arguments(logger)["project"] = "two"
    assert logger._wandb_init["project"] == "two" and logger._wandb_init["mode"] == "disabled"
    assert "**self._wandb_init" in inspect.getsource(WandbLogger)


@name("WandbLogger._experiment", "looks whether a run of wandb has begun")
def _(tmp_path: Path) -> None:
    logger = WandbLogger(project="one", save_dir=str(tmp_path), mode="disabled")
    assert not training.has_experiment(logger)
    assert logger.experiment is not None and training.has_experiment(logger)


@name("lightning.fabric.loggers.logger._DummyExperiment", "takes what is logged after a logger has failed")
def _(_: Path) -> None:
    experiment = training.no_experiment()
    experiment.add_scalar("loss", 1.0)
    experiment.add_image()


@name("tensorboard's _AsyncWriterThread", "keeps the traceback of TensorBoard's thread from the terminal")
def _(_: Path) -> None:
    from tensorboard.summary.writer import event_file_writer

    assert inspect.isclass(getattr(event_file_writer, training.TENSORBOARD_THREAD))


# Python


@name(
    "atexit._clear and weakref.finalize._exitfunc and util._exit_function",
    "leaves the ends of a process to it, and not to its copies",
)
def _(tmp_path: Path) -> None:
    script = """
import atexit, multiprocessing.util, os, sys, tempfile, weakref
from pathlib import Path
from segzoo.compat.processes import forget_ends
folder, kept = Path(sys.argv[1]), tempfile.TemporaryDirectory(dir=sys.argv[1])
atexit.register(lambda: (folder / f"registered-{os.getpid() == first}").touch())
class Thing: pass
thing, own = Thing(), Thing()
weakref.finalize(thing, (folder / "finalized").touch)
first = os.getpid()
if (pid := os.fork()) == 0:
    forget_ends()
    weakref.finalize(own, (folder / "own").touch)
    multiprocessing.util.Finalize(None, (folder / "multiprocessing").touch, exitpriority=1)
    sys.exit()
os.waitpid(pid, 0)
(folder / "seen").write_text(" ".join(sorted(path.name for path in folder.iterdir() if path.is_file())))
assert Path(kept.name).is_dir()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(tmp_path)], check=True)
    assert (tmp_path / "seen").read_text() == "multiprocessing own"
    assert (tmp_path / "registered-True").exists() and (tmp_path / "finalized").exists()
    assert not (tmp_path / "registered-False").exists()


@pytest.mark.parametrize("foreign", CHECKS)
def test_a_name_that_we_lean_on_is_there(foreign: str, tmp_path: Path) -> None:
    purpose, check = CHECKS[foreign]
    try:
        check(tmp_path)
    except Exception as error:
        raise AssertionError(f"{foreign}, which {purpose}: {type(error).__name__}: {error}") from error
