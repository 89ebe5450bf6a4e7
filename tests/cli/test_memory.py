"""What `segzoo fit` tells the allocator."""

import os
import platform
import subprocess
import sys

import pytest

PASSES = """
import resource
import sys
import torch
from segzoo.cli.memory import keep_freed_memory

def passes():
    maps = [torch.ones(2**20) for _ in range(16)]  # 4 MiB each
    del maps
    torch.ones(2**24)  # larger than what glibc takes from its heap by itself

told = keep_freed_memory()
passes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
passes()
print(int(told), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def told_and_new_pages(**settings):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | settings
    found = subprocess.run(
        [sys.executable, "-c", PASSES], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    return bool(int(found[0])), int(found[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_a_second_pass_needs_no_new_pages():
    assert told_and_new_pages() == (True, pytest.approx(0, abs=100))


def test_settings_of_the_environment_are_left_alone():
    told, pages = told_and_new_pages(MALLOC_TRIM_THRESHOLD_="65536")
    assert not told
    assert pages > 2**24 * 4 / 2**12 - 100
