"""What `segzoo fit` tells the allocator, and `segzoo test` does not."""

import os
import platform
import subprocess
import sys

import pytest

from segzoo.cli.main import main

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")

PASSES = """
import resource
import torch
from segzoo.runtime.memory import keep_freed_memory

def passes():
    maps = [torch.ones(2**20) for _ in range(16)]  # 4 MiB each
    del maps
    torch.ones(2**24)  # larger than what glibc takes from its heap by itself

told = keep_freed_memory()
for _ in range(5):
    passes()  # in the first ones small blocks still find their places
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
passes()
print(int(told), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = (16 * 2**20 + 2**24) * 4 // os.sysconf("SC_PAGESIZE")


def _clean():
    return {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}


def told_and_new_pages(**settings):
    environment = _clean() | settings
    found = subprocess.run(
        [sys.executable, "-c", PASSES], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    return bool(int(found[0])), int(found[1])


def test_a_later_pass_needs_no_new_pages():
    told, pages = told_and_new_pages()
    assert told
    assert pages < PAGES / 10


GROWING = """
import resource
import torch
from segzoo.runtime.memory import give_freed_memory_back

told = give_freed_memory_back()
torch.ones(2**22)  # 16 MiB: without the setting blocks of this size come from the heap from now on
block, small = torch.ones(2**21), bytearray(1000)
before = int(open("/proc/self/statm").read().split()[1])
del block
print(int(told), before - int(open("/proc/self/statm").read().split()[1]))
"""


def test_a_freed_block_is_given_back():
    done = subprocess.run([sys.executable, "-c", GROWING], env=_clean(), capture_output=True, text=True, check=True)
    told, pages = map(int, done.stdout.split())
    assert told
    assert pages > 0.9 * 2**23 / os.sysconf("SC_PAGESIZE")


def test_settings_of_the_environment_are_left_alone():
    told, pages = told_and_new_pages(MALLOC_TRIM_THRESHOLD_="65536")
    assert not told
    assert pages > 0.9 * PAGES


def test_fit_tells_it(monkeypatch):
    told = []
    monkeypatch.setattr("segzoo.runtime.memory.keep_freed_memory", lambda: told.append(True))
    # Refused, but only by the parser behind.
    assert main(["fit", "--method", "joint", "--data.size", "1", "2", "3"]) == 2
    assert told


def test_a_test_does_not(monkeypatch):
    told = []
    monkeypatch.setattr("segzoo.runtime.memory.keep_freed_memory", lambda: told.append(True))
    assert main(["test", "--ckpt_path", "none.ckpt"]) != 0
    assert not told
