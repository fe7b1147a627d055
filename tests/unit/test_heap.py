"""What the allocator does is seen from a fresh process: its page faults."""

import subprocess
import sys

FAULTS = """
import resource, sys
from toolchain import heap
if sys.argv[1] == "kept":
    heap.keep_freed()
def fill():
    return bytearray(b"x" * 2**24)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    answer = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(answer.stdout)


def test_arrays_that_follow_freed_ones_cost_no_page_faults():
    assert faults("kept") < faults("given back") / 10
