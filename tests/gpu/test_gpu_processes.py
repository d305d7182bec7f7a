"""Two processes, each with a pretend GPU of its own: nccl's branch, on gloo."""

import os
import subprocess
import sys

import pytest
import torch

from helpers import workspace
from tests.conftest import PATIENCE
from tests.gpu import two

ALONE = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.long
def test_two_gpus_give_one_gpus_gradient(tmp_path):
    left = tmp_path / "left"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(workspace.PROJECT)}
    for launcher in (ALONE, TORCHRUN):
        subprocess.run(
            [*launcher, two.__file__, str(left)], check=True, timeout=PATIENCE, env=environment
        )
    one = torch.load(left)
    both = [torch.load(f"{left}{rank}") for rank in (0, 1)]
    assert [each["device"] for each in both] == ["cuda:0", "cuda:1"]
    for each in both:
        for name in ("logits", "gradient", "mean"):  # batch norm saw both GPUs' photographs
            torch.testing.assert_close(each[name], one[name], rtol=1e-3, atol=1e-4)
    assert torch.equal(both[0]["gradient"], both[1]["gradient"])
