"""Large tensors lie in memory for which large pages were asked."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import dinoidd.models, torch
kept = torch.ones(256 << 20, dtype=torch.uint8)
print(open("/proc/self/smaps").read())
"""
MAPPED = 250 << 10  # kB: what holds the tensor


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux' large pages")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("setting", "expected"), [(None, True), ("0", False)])
def test_large_pages__are_asked_for(setting: str | None, expected: bool) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    if setting is not None:  # a user's own is kept
        environment["THP_MEM_ALLOC_ENABLE"] = setting
    program = [sys.executable, "-c", PROGRAM]
    maps = subprocess.run(program, check=True, capture_output=True, text=True, env=environment)
    flags = _flags_of_large_maps(maps.stdout)
    assert flags, "the tensor is mapped by itself"
    assert any("hg" in one for one in flags) == expected  # madvise(MADV_HUGEPAGE)


def _flags_of_large_maps(smaps: str) -> list[list[str]]:
    flags, resident = [], 0
    for line in smaps.splitlines():
        name, _, rest = line.partition(":")
        if name == "Rss":
            resident = int(rest.split()[0])
        elif name == "VmFlags" and resident > MAPPED:
            flags.append(rest.split())
    return flags
