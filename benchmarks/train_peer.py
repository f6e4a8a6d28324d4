"""TRL's side of benchmarks/train.py, run by the peers' own python: `train_peer.py JOB OUT`.

Nothing of flywright is imported here: JOB (JSON) names a weights folder and a JSONL file of token
ids. OUT gets the seconds, real (unpadded) tokens and loss of every optimizer step.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

import torch
import transformers
import trl
from datasets import Dataset

Job = dict[str, Any]


class Counted:
    """A trainer that notes when each optimizer step ended, its real tokens and its loss."""

    steps: list[dict[str, float]]
    _now: dict[str, float]

    def training_step(self, model, inputs, *args, **kwargs):
        """One micro-batch; the trainer's own, then counted."""
        shown = inputs.get("attention_mask")
        tokens = inputs["input_ids"].numel() if shown is None else int(shown.sum())
        loss = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        self._now["tokens"] += tokens
        self._now["loss"] += float(loss)
        return loss


class Sft(Counted, trl.SFTTrainer):
    """SFTTrainer takes token ids and labels as they are."""


class Reward(Counted, trl.RewardTrainer):
    """RewardTrainer takes token ids as they are."""


class Dpo(Counted, trl.DPOTrainer):
    """DPOTrainer has no way to take token ids, so its preparation is left out."""

    reference_seconds = 0.0

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def _precompute_ref_logps(self, *args, **kwargs):
        start = time.perf_counter()
        found = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds = time.perf_counter() - start
        return found


class Clock(transformers.TrainerCallback):
    """Closes a step's account when its weights are updated."""

    def __init__(self, trainer: Counted):
        self.trainer = trainer

    def on_train_begin(self, *args, **kwargs) -> None:
        """The first step starts."""
        self._open()

    def on_step_end(self, *args, **kwargs) -> None:
        """One optimizer step is done."""
        now = time.perf_counter()
        self.trainer.steps.append({**self.trainer._now, "seconds": now - self._start})
        self._open()

    def _open(self) -> None:
        self._start = time.perf_counter()
        self.trainer._now = {"tokens": 0, "loss": 0.0}


def arguments(job: Job, records: list[dict]) -> dict[str, Any]:
    """What the three trainers are told alike, and what this job's setting adds."""
    setting, rows = job["setting"], job["setting"]["rows"]
    batches = job["records_per_step"] / rows
    if setting.get("packing"):  # as many rows as hold the same records
        tokens = sum(len(record["input_ids"]) for record in records) / len(records)
        batches = job["records_per_step"] * tokens / (job["context"] * rows)
    weights = setting["weights"]
    return {
        "output_dir": job["work"],
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": max(1, round(batches)),
        "num_train_epochs": 1,
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "weight_decay": job["weight_decay"],
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "bf16": weights == "fp32, autocast",
        "gradient_checkpointing": False,
        "train_sampling_strategy": setting.get("order", "sequential"),
        "remove_unused_columns": False,  # else the lengths to group by are dropped
        "torch_compile": setting.get("compile", False),
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 1,
    }


def open_model(job: Job, kind: Any) -> Any:
    """The weights folder in transformers."""
    stored = torch.bfloat16 if job["setting"]["weights"] == "bf16" else torch.float32
    attention = job["setting"].get("attention", "sdpa")
    return kind.from_pretrained(job["model"], dtype=stored, attn_implementation=attention)


def trainer_of(job: Job) -> Any:
    """The trainer of this job, its data set and model."""
    records = [json.loads(line) for line in Path(job["data"]).read_text().splitlines()]
    shared, setting = arguments(job, records), job["setting"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    given: dict[str, Any] = {
        "train_dataset": Dataset.from_list(records),
        "processing_class": tokenizer,
    }
    if job["what"] == "sft":
        packing, free = setting.get("packing", False), setting.get("padding_free", False)
        args = trl.SFTConfig(
            **shared,
            max_length=None if free else job["context"],
            packing=packing,
            packing_strategy="bfd",
            padding_free=free,
        )
        return Sft(open_model(job, transformers.AutoModelForCausalLM), args=args, **given)
    if job["what"] == "reward":
        kind = transformers.AutoModelForSequenceClassification
        args = trl.RewardConfig(**shared, max_length=job["context"])
        return Reward(open_model(job, kind), args=args, **given)
    args = trl.DPOConfig(
        **shared,
        max_length=job["context"],
        beta=job["beta"],
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=setting["rows"],
    )
    return Dpo(open_model(job, transformers.AutoModelForCausalLM), args=args, **given)


def main() -> None:
    """Train and write what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    trainer = trainer_of(job)  # DPO computes its reference here
    trainer.steps = []
    trainer.add_callback(Clock(trainer))
    trainer.train()
    found = {"steps": trainer.steps, "trl": trl.__version__}
    found["reference_seconds"] = getattr(trainer, "reference_seconds", 0.0)
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
