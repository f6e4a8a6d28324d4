"""Against lm-evaluation-harness itself: the same folder and files give the same numbers.

FLYWRIGHT_LM_EVAL names a python that has lm_eval[hf] 0.4.13 and torch 2.13.0; without it, skipped.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flywright.model import Decoder, save
from flywright.spec import ModelSpec
from flywright.tokenizer import chat, train_tokenizer

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FLYWRIGHT_DATA", ROOT / "../shared/data"))
PEER = os.environ.get("FLYWRIGHT_LM_EVAL", "")
NAMES = (
    "mmlu@5:anatomy",
    "mmlu@0:virology",
    "arc_challenge@25",
    "arc_easy",
    "hellaswag@10",
    "winogrande@5",
    "openbookqa",
    "piqa",
    "boolq",
    "gsm8k_base",
    "gsm8k_cot",
    "mgsm:de",
)
LIMIT = 18


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights, and a tokenizer trained on English text."""
    lines = (ROOT / "docs").rglob("*.md")
    texts = [line for path in sorted(lines) for line in path.read_text().splitlines() if line]
    tokenizer = train_tokenizer(texts, 2000)
    spec = ModelSpec(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        ffn_size=128,
        context_length=1024,
        rotary_fraction=0.5,
        init_std=0.2,
    )
    out = tmp_path_factory.mktemp("policy")
    save(Decoder(spec, seed=5), out, chat.end_ids(tokenizer), pad_id=tokenizer.pad_id)
    tokenizer.save(out)
    return out


@pytest.mark.slow
@pytest.mark.skipif(not PEER, reason="FLYWRIGHT_LM_EVAL names no python with lm_eval")
@pytest.mark.skipif(not (DATA / "mmlu").is_dir(), reason=f"no benchmark files in {DATA}")
def test_the_same_log_likelihoods_texts_accuracies_and_errors(folder: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from evals import ours, same  # type: ignore[import-not-found]

    command = [PEER, ROOT / "benchmarks/evals_peer.py", folder, DATA, tmp_path / "peer.json"]
    command += ["--tasks", ",".join(NAMES), "--limit", LIMIT, "--max-tokens", 24]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "hf")}
    subprocess.run(list(map(str, command)), check=True, env=offline, capture_output=True)
    peer = json.loads((tmp_path / "peer.json").read_text())["tasks"]
    torch.manual_seed(0)
    mine = ours(folder, list(NAMES), LIMIT, max_tokens=24)
    for name in NAMES:
        found, theirs = same(mine[name], peer[name]), peer[name]["results"]
        assert found["prompts"] == 0, name
        assert found["worst"] < 1e-4, name
        assert found["texts"] == 0, name
        assert found["worst"] or found["compared"] >= 6, name
        for metric, value in mine[name]["metrics"].items():
            key = {"strict_match": "exact_match,strict-match"}.get(metric, f"{metric},none")
            key = key.replace("flexible_extract,none", "exact_match,flexible-extract")
            if key in theirs:
                assert value == pytest.approx(theirs[key]), (name, metric)
                error = theirs[key.replace(",", "_stderr,")]
                assert mine[name]["stderr"][metric] == pytest.approx(error), (name, metric)
        assert any(f"{metric},none" in theirs or "_" in metric for metric in mine[name]["metrics"])
