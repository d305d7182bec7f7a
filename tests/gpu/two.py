"""One step of training on a pretend GPU: of this process, or of each that torchrun starts.

python tests/gpu/two.py FILE: leaves FILE and the process's number (nothing, if it is alone).
"""

import os
import sys

import torch

from helpers.model import AttnVGG
from helpers.training import processes
from helpers.training.loss import focal_loss, mask_loss
from tests.gpu.conftest import pretend

B = 13  # does not part into equal shares


def main() -> None:
    torch.manual_seed(0)
    network = AttnVGG(attention="sigmoid")
    images = torch.randn(B, 3, 64, 64)
    targets = (torch.arange(B) % 2).float()
    masks = (torch.rand(B, 1, 64, 64) > 0.5).float()
    masked = (torch.arange(B) % 3 == 0).float()
    with pretend("h100", devices=2), processes.started("auto") as device:
        network = network.to(device).train()
        forward = processes.replicate(network)
        own = processes.share(B)
        output = forward(images[own].to(device))
        logit = output.logits.squeeze(1)
        loss = focal_loss(logit, targets[own].to(device), reduction="sum") / B
        there = masks[own].to(device), masked[own].to(device)
        dice = mask_loss(output[1:], *there, (0.1, 0.2), reduction="sum")
        (loss + dice / masked.sum().item()).backward()
        logits = torch.zeros(B, device=device)
        logits[own] = logit.detach()
        logits = processes.total(logits).cpu()
        processes.copy_buffers(network)
        processes.agree(1, "the epoch")
        left = {
            "device": str(device),
            "logits": logits,
            "gradient": network.classifier.weight.grad.cpu(),
            "mean": network.backbone[1].running_mean.cpu(),
        }
    torch.save(left, sys.argv[1] + os.environ.get("RANK", ""))


if __name__ == "__main__":
    main()
