"""Labels on the feature grid, and what is gathered of every class there."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing import start_processes
from torch.nn import functional as F

from segzoo.adaptation import ClassBank, ClassStatistics, downscale_labels, labelled_cells

CLASSES, DIM, LENGTH = 6, 4, 3

seeds = st.integers(0, 2**31)
# New processes would import torch and all of ours first.
forked = pytest.mark.skipif(sys.platform != "linux", reason="forks processes and reads /proc")


@pytest.fixture
def official(shared):
    return {name: torch.from_numpy(value) for name, value in np.load(shared / "golden/official.npz").items()}


def pixels(seed, number=40, classes=CLASSES, dtype=torch.float64):
    """Features that differ in mean and scale by class, and labels of which the last class never occurs."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes - 1, (number,), generator=g)
    return torch.randn(number, DIM, generator=g, dtype=dtype) * (1 + labels[:, None]) + labels[:, None], labels


def step(official, i):
    return official[f"class_stats.step{i}.features"], official[f"class_stats.step{i}.labels"]


# Labels


@pytest.mark.parametrize("ratio", [0.75, 0.5])
def test_published_labels(official, ratio):
    cells = downscale_labels(official["contrast.labels"], (8, 10), ratio, 19)
    assert torch.equal(cells, official[f"contrast.downscaled.min_ratio{ratio}"])
    known = labelled_cells(cells)
    features, labels = known.of(official["contrast.features"]), known.labels
    assert torch.equal(features, official[f"contrast.prep.min_ratio{ratio}.features"])
    assert torch.equal(labels, official[f"contrast.prep.min_ratio{ratio}.labels"])


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    grid=st.tuples(*[st.integers(1, 4)] * 3),
    scale=st.tuples(*[st.integers(1, 5)] * 2),
    ratio=st.floats(0.51, 1),
)
def test_integer_ratios_are_average_pooling(seed, grid, scale, ratio):
    batch, h, w = grid
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (batch, h * scale[0], w * scale[1]), generator=generator)
    labels[labels == 3] = 255
    shares = F.avg_pool2d(F.one_hot(labels.clamp_max(3), 4).movedim(-1, 1).double(), scale)
    most, expected = shares.max(1)
    expected[(most < ratio) | (expected == 3)] = 255
    assert torch.equal(downscale_labels(labels, (h, w), ratio, 3), expected)


def test_a_share_of_exactly_the_ratio_is_enough():
    labels = torch.zeros(1, 10, 10, dtype=torch.int64)
    labels.view(-1)[:45] = 1
    assert downscale_labels(labels, (1, 1), 0.55, 2).item() == 0
    assert downscale_labels(labels, (1, 1), 0.551, 2).item() == 255
    assert downscale_labels(labels.masked_fill(labels == 1, 255), (1, 1), 0.55, 2).item() == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 12), st.integers(0, 12))
def test_other_ratios_take_each_pixel_once(h, w, more, wider):
    """A pixel changes the cell that its centre lies in and no other."""
    height, width = h + more, w + wider
    for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 3)):
        labels = torch.zeros(1, height, width, dtype=torch.int64)
        labels[0, y, x] = 1
        changed = (downscale_labels(labels, (h, w), 1.0, 2) != 0).nonzero().tolist()
        assert changed == [[0, int((y + 0.5) / height * h), int((x + 0.5) / width * w)]]


def test_every_void_label_and_every_integer_type():
    labels = torch.tensor([[[0, 0, 255, 255], [1, 1, 200, 2]]])
    for dtype in (torch.uint8, torch.int32, torch.int64):
        cells = downscale_labels(labels.to(dtype), (2, 2), 0.75, 2)
        assert cells.dtype == torch.int64 and cells.tolist() == [[[0, 255], [1, 255]]]
    assert downscale_labels(torch.full((1, 2, 2), -1), (1, 1), 0.5, 2, ignore_index=-1).item() == -1
    assert downscale_labels(torch.zeros(1, 2, 2), (1, 1), 0.5, 2, ignore_index=0).item() == 0


def test_a_finer_grid_is_refused():
    with pytest.raises(ValueError, match="4x8 pixels cannot be reduced to the finer grid 5x2"):
        downscale_labels(torch.zeros(1, 4, 8), (5, 2), 0.75, 2)


# Statistics


def test_published_statistics_and_bank(official):
    statistics, bank = ClassStatistics(19, 32), ClassBank(19, 32, 5)
    for i in range(7):
        statistics.update(*step(official, i))
        bank.update(*step(official, i))
    for name in ("mean", "variance"):
        torch.testing.assert_close(getattr(statistics, name), official[f"class_stats.{name}"], rtol=1e-9, atol=1e-15)
    assert torch.equal(statistics.count.double(), official["class_stats.count"])
    assert statistics.seen.tolist() == [True] * 17 + [False] * 2
    for c in range(19):
        torch.testing.assert_close(bank.entries(c), official[f"class_stats.bank{c}"], rtol=1e-9, atol=1e-15)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, cuts=st.lists(st.integers(0, 300), max_size=6))
def test_any_updates_are_the_pooled_mean_and_variance(seed, cuts):
    features, labels = pixels(seed, 300)
    statistics = ClassStatistics(CLASSES, DIM).double()
    for part, y in zip(features.tensor_split(sorted(cuts)), labels.tensor_split(sorted(cuts)), strict=True):
        statistics.update(part, y)
    for c in range(CLASSES):
        own = features[labels == c].numpy()
        assert statistics.count[c] == len(own)
        expected = (own.mean(0), own.var(0)) if len(own) else (np.zeros(DIM), np.zeros(DIM))
        np.testing.assert_allclose(statistics.mean[c], expected[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(statistics.variance[c], expected[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1000.0])
def test_single_precision_does_not_cancel(offset):
    """One class of 60,000 pixels a thousand deviations from zero: the rounding of the features themselves is all there is."""
    features = torch.randn(60_000, 8, generator=torch.Generator().manual_seed(0)) + offset
    statistics = ClassStatistics(2, 8)
    for part in features.split(20_000):
        statistics.update(part, torch.zeros(len(part), dtype=torch.int64))
    exact = features.double()
    torch.testing.assert_close(statistics.mean[0].double(), exact.mean(0), rtol=4e-7, atol=1e-7)
    torch.testing.assert_close(statistics.variance[0].double(), exact.var(0, unbiased=False), rtol=1e-6, atol=0)


def test_many_updates_in_single_precision():
    features, labels = pixels(0, 30_000, dtype=torch.float32)
    statistics = ClassStatistics(CLASSES, DIM)
    for part, y in zip(features.split(30), labels.split(30), strict=True):
        statistics.update(part, y)
    for c in range(CLASSES - 1):
        own = features[labels == c].double()
        torch.testing.assert_close(statistics.mean[c].double(), own.mean(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(statistics.variance[c].double(), own.var(0, unbiased=False), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_buffers_are_as_wide_as_the_features_and_at_least_single(dtype):
    features, labels = pixels(0)
    features = features.to(dtype).requires_grad_()
    statistics, bank = ClassStatistics(CLASSES, DIM), ClassBank(CLASSES, DIM, LENGTH)
    statistics.update(features, labels)
    bank.update(features, labels)
    wide = torch.promote_types(dtype, torch.float32)
    for value in (statistics.mean, statistics.variance, bank.bank):
        assert value.dtype == wide and not value.requires_grad
    torch.testing.assert_close(statistics.mean[1], features[labels == 1].to(wide).mean(0).detach())


# Bank


@pytest.mark.parametrize("seed_zero", [True, False])
def test_bank_keeps_the_last_means(seed_zero):
    bank = ClassBank(CLASSES, DIM, LENGTH, seed_zero).double()
    expected = [[np.zeros(DIM)] if seed_zero else [] for _ in range(CLASSES)]
    for i in range(8):
        features, labels = pixels(i, 5)  # so few that most updates miss a class
        bank.update(features, labels)
        for c in labels.unique().tolist():
            expected[c].append(features[labels == c].mean(0).numpy())
        for c, means in enumerate(expected):
            kept = means[-LENGTH:]
            assert bank.filled[c] == len(kept)
            np.testing.assert_allclose(bank.entries(c), np.reshape(kept, (-1, DIM)), atol=1e-12)
            in_use = bank.bank[c, : bank.filled[c]]
            np.testing.assert_allclose(sorted(in_use.tolist()), sorted(map(list, kept)), atol=1e-12)


def test_an_update_without_pixels_changes_nothing():
    statistics, bank = ClassStatistics(CLASSES, DIM), ClassBank(CLASSES, DIM, LENGTH)
    for module in (statistics, bank):
        module.update(*pixels(0, dtype=torch.float32))
        before = {name: value.clone() for name, value in module.state_dict().items()}
        module.update(*pixels(1, 0, dtype=torch.float32))
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# State, ranks, memory


def test_resuming_from_a_checkpoint_continues_exactly(tmp_path):
    def fresh():
        return ClassStatistics(CLASSES, DIM), ClassBank(CLASSES, DIM, LENGTH)

    whole, first, second = fresh(), fresh(), fresh()
    for a, b, c in zip(whole, first, second, strict=True):
        for i in range(5):
            a.update(*pixels(i, dtype=torch.float32))
        for i in range(3):
            b.update(*pixels(i, dtype=torch.float32))
        torch.save(b.state_dict(), tmp_path / "state.pt")
        c.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for i in range(3, 5):
            c.update(*pixels(i, dtype=torch.float32))
        assert all(torch.equal(value, c.state_dict()[name]) for name, value in a.state_dict().items())


RANK_CUTS = [13, 40, 0, 25]  # of the 40 pixels of each update, what rank 0 holds: also all, and none


def gather(rank, folder):
    """Updates of one rank, or of all where rank is None."""
    if rank is not None:
        torch.set_num_threads(1)
        store, patience = f"file://{folder}/store", timedelta(seconds=60)
        dist.init_process_group("gloo", init_method=store, timeout=patience, rank=rank, world_size=2)
    modules = torch.nn.ModuleList([ClassStatistics(CLASSES, DIM), ClassBank(CLASSES, DIM, LENGTH)])
    for i, cut in enumerate(RANK_CUTS):
        mine = slice(None) if rank is None else (slice(cut), slice(cut, None))[rank]
        features, labels = pixels(i)
        labels = labels.sort().values  # most classes on one rank only
        for module in modules:
            module.update(features[mine], labels[mine])
    if rank is not None:
        torch.save(modules.state_dict(), f"{folder}/{rank}.pt")
        dist.destroy_process_group()
    return modules.state_dict()


@forked
def test_two_ranks_are_one_process(tmp_path):
    start_processes(gather, (str(tmp_path),), nprocs=2, start_method="fork")
    expected = gather(None, None)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


def resident(peak):
    """The process's resident memory in KiB, now or at its peak since it was last forgotten."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:" if peak else "VmRSS:")[1].split()[0])


def added_by_an_update():
    """By how much an update at published size raises the process's memory, in KiB."""
    generator = torch.Generator().manual_seed(0)
    modules = ClassStatistics(19, 512), ClassBank(19, 512, 200)
    features = torch.randn(51_200, 512, generator=generator)
    labels = torch.randint(19, (51_200,), generator=generator)
    for module in modules:
        module.update(features[:19], labels[:19])
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident(peak=False)
    for module in modules:
        module.update(features, labels)
    return resident(peak=True) - before


@forked
def test_memory_of_an_update_at_published_size():
    """One array for each pair of a pixel and a class would take 2 GB."""
    # A process of its own: this one, and its forks, have freed memory that would be used again unseen.
    program = "from tests.unit import test_class_statistics as t; print(t.added_by_an_update())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    added = int(done.stdout.split()[-1]) / 1024
    assert 51_200 * 512 * 4 / 2**20 * 0.9 < added < 300
