"""The mean teacher: its average, its modes, its state."""

import copy

import lightning as L
import pytest
import segmentation_models_pytorch as smp
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from segzoo.adaptation import EmaTeacher, ema_decay
from segzoo.models.norms import replace_norms
from segzoo.models.segmenter import create_segmenter
from segzoo.models.sync_norm import SyncBatchNorm

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 4, 1))
        self.tail = nn.Sequential(BatchNormAct2d(4, drop_layer=nn.Dropout), nn.Conv2d(4, 2, 1))
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
        self.register_buffer("constant", torch.tensor(1.0))

    def forward(self, x):
        return self.tail(self.body(x))


def network(norm="batch"):
    torch.manual_seed(0)
    net = Network()
    replace_norms(net, norm)
    return net


def disturb(net, seed):
    """A step of a student: parameters, statistics and counters move."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator))
    net.train()(IMAGES + seed)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (1, 0.5), (9, 0.9), (998, 0.998998999), (999, 0.999), (5000, 0.999)]
)
def test_decay(step, expected):
    assert ema_decay(step, 0.999) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("buffers", [False, True])
def test_average_is_that_of_a_naive_loop(buffers):
    student = network()
    del student.mask  # -inf has no average
    teacher = EmaTeacher(student, decay=0.7, buffers=buffers)
    expected = {}
    for t in range(6):
        disturb(student, t)
        student.constant.fill_(float(t))
        alpha = min(1 - 1 / (t + 1), 0.7)
        tensors = {n: x.detach().clone() for n, x in [*student.named_parameters(), *student.named_buffers()]}
        for name, x in tensors.items():
            fixed = name in dict(student.named_buffers()) and not buffers
            if t == 0 or (not x.is_floating_point() and buffers):
                expected[name] = x
            elif not fixed:
                expected[name] = alpha * expected[name] + (1 - alpha) * x
        teacher.update(student)
        assert int(teacher.step) == t + 1
        own = dict([*teacher.network.named_parameters(), *teacher.network.named_buffers()])
        assert own.keys() == {n for n in expected if buffers or not n.endswith(("mean", "var", "tracked"))}
        for name, x in own.items():
            torch.testing.assert_close(x, expected[name], msg=name)
    assert not torch.equal(teacher.network.body[0].weight, student.body[0].weight)


def test_first_update_copies_exactly_later_ones_leave_the_student_alone():
    student = network()
    teacher = EmaTeacher(student)
    disturb(student, 1)
    before = copy.deepcopy(student.state_dict())
    teacher.update(student)
    for name, x in teacher.network.state_dict().items():
        assert torch.equal(x, student.state_dict()[name])
    teacher.update(student)
    assert all(torch.equal(x, before[name]) for name, x in student.state_dict().items())
    assert all(p.requires_grad for p in student.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher(IMAGES).requires_grad


def test_tensors_are_its_own():
    student = network()
    teacher = EmaTeacher(student)
    teacher.update(student)
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.parameters()}


def test_a_student_that_lacks_a_parameter_is_refused():
    teacher = EmaTeacher(network())
    with pytest.raises(KeyError):
        teacher.update(network().tail)


@pytest.mark.parametrize("norm", ["batch", "sync"])
def test_published_teacher_normalises_by_the_batch_without_dropout(norm):
    student = network(norm)
    for seed in range(3):
        disturb(student, seed)  # running statistics far from those of the batch
    teacher = EmaTeacher(student)
    reference = copy.deepcopy(student).train()
    for module in reference.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    expected = reference(IMAGES)
    for mode in (True, False):
        teacher.train(mode)
        before = copy.deepcopy(teacher.state_dict())
        assert torch.equal(teacher(IMAGES), expected)
        assert all(torch.equal(x, before[name]) for name, x in teacher.state_dict().items())
    assert not torch.allclose(student.eval()(IMAGES), expected)


@pytest.mark.parametrize("buffers", [False, True])
def test_teacher_with_statistics_or_frozen_norms_predicts_as_the_student_in_evaluation(buffers):
    student = network("frozen" if not buffers else "batch")
    for norm in (student.body[1], student.tail[0]):
        norm.running_mean.fill_(0.3)
        norm.running_var.fill_(2.0)
    teacher = EmaTeacher(student, buffers=buffers)
    teacher.update(student)
    for mode in (True, False):
        assert torch.equal(teacher.train(mode)(IMAGES), student.eval()(IMAGES))
        assert torch.equal(teacher.train(mode)(IMAGES[:1])[0], teacher(IMAGES)[0])
    assert float(teacher.network.body[1].running_mean[0]) == pytest.approx(0.3)


def training(net):
    return {name for name, module in net.named_modules() if module.training}


@pytest.mark.parametrize("norm", ["batch", "sync", "frozen", "group"])
@pytest.mark.parametrize("buffers", [False, True])
def test_modes_hold_inside_a_lightning_module(norm, buffers):
    class Method(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.student = network(norm)
            self.teacher = EmaTeacher(self.student, buffers=buffers)

    method = Method()
    by_batch = norm in ("batch", "sync") and not buffers
    expected = {
        n
        for n, m in method.teacher.named_modules()
        if by_batch and type(m) in (nn.BatchNorm2d, BatchNormAct2d, SyncBatchNorm)
    }
    assert len(expected) == 2 * by_batch
    for change in (method.train, method.eval, method.train, method.teacher.eval, lambda: method.train(False)):
        change()
        assert training(method.teacher) == expected


def test_state_round_trip_continues_exactly():
    student = network()
    teacher = EmaTeacher(student, decay=0.9)
    for seed in range(3):
        disturb(student, seed)
        teacher.update(student)
    other = EmaTeacher(network(), decay=0.9)
    other.load_state_dict(copy.deepcopy(teacher.state_dict()))
    disturb(student, 9)
    for each in (teacher, other):
        each.update(student)
    assert int(other.step) == 4
    assert teacher.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in teacher.state_dict().items())
    assert torch.equal(teacher(IMAGES), other(IMAGES))


def test_compiled_student_has_an_eager_teacher():
    def backend(graph, inputs):
        raise AssertionError("compiled")

    student = network()
    student.compile(backend=backend)
    assert EmaTeacher(student)(IMAGES).shape == (2, 2, 30, 30)
    with pytest.raises(Exception, match="compiled"):
        student(IMAGES)


@pytest.mark.parametrize("norm", ["batch", "frozen", "sync"])
def test_segmenters(norm):
    torch.manual_seed(0)
    student = create_segmenter("unet", "tu-test_resnet", 5, norm=norm, options={"decoder_channels": [8, 8, 8, 8, 8]})
    teacher = EmaTeacher(student)
    teacher.update(student)
    student.train()
    with torch.no_grad():
        assert torch.equal(teacher(IMAGES), student(IMAGES))  # it has no dropout
    assert sum(p.numel() for p in teacher.parameters()) == sum(p.numel() for p in student.parameters())


def test_drop_path_is_off():
    torch.manual_seed(0)
    student = smp.Segformer("mit_b0", encoder_weights=None, classes=3)
    assert any(type(m).__name__ == "DropPath" and m.drop_prob > 0 for m in student.modules())
    teacher = EmaTeacher(student)
    assert torch.equal(teacher(IMAGES), teacher(IMAGES))
    with torch.no_grad():
        assert not torch.equal(student.train()(IMAGES), student(IMAGES))


class Reads(TorchDispatchMode):
    """Counts how often a value is read, for which a device would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func._schema.name == "aten::_local_scalar_dense"
        return func(*args, **(kwargs or {}))


def test_its_step_is_read_where_somebody_else_has_set_it():
    student = network()
    teacher = EmaTeacher(student)
    for _ in range(3):
        with Reads() as reads:
            teacher.update(student)
        assert reads.count == 0
    loaded, copied = EmaTeacher(student), copy.deepcopy(teacher)
    loaded.update(student)
    loaded.load_state_dict(teacher.state_dict())
    teacher.to(torch.float64).to(torch.float32)
    for one in (teacher, loaded, copied):
        assert one._steps() == 3 == int(one.step)
        one.update(student)
        assert one._steps() == 4 == int(one.step)
    assert teacher.load_state_dict(EmaTeacher(student).state_dict()) and teacher._steps() == 0
