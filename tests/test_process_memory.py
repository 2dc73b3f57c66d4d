"""Memory between forwards: what was freed is taken again without the system's help."""

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from dinoidd.inference.memory import keep_freed_memory
{call}
for _ in range(2):
    torch.ones(64 << 20, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(64 << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
@pytest.mark.timeout(120)
def test_freed_memory__is_taken_again() -> None:
    kept, given_back = (_page_faults(call) for call in ("keep_freed_memory()", ""))
    pages = 4 * (64 << 20) // resource.getpagesize()
    assert kept < 0.01 * pages
    assert given_back > 0.5 * pages  # else there is nothing to gain


def _page_faults(call: str) -> int:
    program = [sys.executable, "-c", PROGRAM.format(call=call)]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
