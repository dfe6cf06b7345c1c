"""What --fast rounds away: logits and LoRA's gradients of one step, beside the exact ones.

    python benchmarks/rounding.py --data FILE.csv --text sentence --label label [--model NAME] [--limit 600]

LoRA on all linear layers, with random B, on a batch of 64. Told are the norm of what is off over the norm of what is
exact: of the logits, less their mean over the batch, and of the gradients of all adapters together. First as --fast is,
with large products in eight bits; then with all of them in bf16.
"""

import argparse
from contextlib import nullcontext

import torch
from sides import Setting, textlift_session

from textlift.models import eight_bits
from textlift.runtime import choose_runtime
from textlift.training.loop import gradients_of
from textlift.training.session import TrainingSession

BATCH = 64


def outcome(session: TrainingSession, *, rounded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, C) less their mean, and the gradients of all adapters in one row."""
    batches = session.micro_batches(session.batches_of_epoch(0)[0])
    session.optimizer.zero_grad(set_to_none=True)
    with session.products() if rounded else nullcontext():
        gradients_of(session.classifier, batches, runtime=session.predictor.runtime, penalty=None)
        with torch.no_grad():
            logits = torch.cat([session.classifier(one["input_ids"], one["attention_mask"]) for one in batches])
    trained = session.classifier.named_parameters()
    gradients = [p.grad.flatten() for name, p in trained if "lora_" in name and p.grad is not None]
    return logits - logits.mean(0), torch.cat(gradients)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Setting.add_arguments(parser)
    setting = Setting.read(parser.parse_args())
    choose_runtime(device="cpu", fast=True)
    session = textlift_session(setting, 0, fast=True, batch_size=BATCH, targets="all-linear")
    for name, weight in session.classifier.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    exact = outcome(session, rounded=False)
    for told, least in (("eight bits and bf16", eight_bits._LEAST), ("bf16", float("inf"))):
        eight_bits._LEAST = least
        pairs = zip(outcome(session, rounded=True), exact, strict=True)
        logits, gradients = (float((found - wanted).norm() / wanted.norm()) for found, wanted in pairs)
        print(f"{told}: logits {logits:.1%}, gradients {gradients:.1%} off")


if __name__ == "__main__":
    main()
