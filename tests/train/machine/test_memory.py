"""The allocator of a training process."""

import platform
import subprocess
import sys

import pytest

PAGES = 4 * (51 << 20) // 4096  # of four steps

FAULTS_OF_STEPS = """
import resource
import torch
from sslight.train.machine.memory import keep_freed_memory

def step():
    layers = [torch.ones(megabytes << 18) for megabytes in (40, 8, 3)]  # freed together, as activations are

def faults_of_four_steps():
    step()
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults_of_four_steps())
assert keep_freed_memory()
print(faults_of_four_steps())
"""

WHAT_IS_LEFT = """
import re
from pathlib import Path
import torch
from sslight.train.machine.memory import keep_freed_memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

for large_too in (True, False):
    assert keep_freed_memory(large_too=large_too)
    before = resident()
    blocks = [torch.ones(64 << 18), torch.ones(1)]  # the second is above the first, which is then a gap
    del blocks[0]
    print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is the one that can be told")
def test_a_lean_run_gives_large_blocks_back() -> None:
    command = [sys.executable, "-c", WHAT_IS_LEFT]
    kept, left = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert kept > 60
    assert left < 4


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is the one that can be told")
def test_a_later_step_finds_the_memory_of_an_earlier_one() -> None:
    command = [sys.executable, "-c", FAULTS_OF_STEPS]  # a process of its own: the setting stays until the end
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, after = map(int, output.split())
    assert before > PAGES / 50
    assert after < PAGES / 50
