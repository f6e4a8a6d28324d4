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
from flywright.tokenizer import chat, train_tokenizer
from tiny_model import spec_of

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
    shape = {"hidden_size": 64, "ffn_size": 128, "context_length": 1024, "init_std": 0.2}
    model = Decoder(spec_of(tokenizer, **shape), seed=5)
    with torch.no_grad():  # bytes that are no text, and ends, would be shown in different ways
        for piece in range(tokenizer.vocab_size):
            if tokenizer.piece(piece).startswith("<"):
                model.lm_head.weight[piece] = 0  # which is never the largest
    out = tmp_path_factory.mktemp("policy")
    save(model, out, chat.end_ids(tokenizer), pad_id=tokenizer.pad_id)
    tokenizer.save(out)
    return out


@pytest.mark.slow
@pytest.mark.skipif(not PEER, reason="FLYWRIGHT_LM_EVAL names no python with lm_eval")
@pytest.mark.skipif(not (DATA / "mmlu").is_dir(), reason=f"no benchmark files in {DATA}")
def test_the_same_log_likelihoods_texts_accuracies_and_errors(folder: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from evals import ours, same  # type: ignore[import-not-found]

    torch.manual_seed(0)
    mine = ours(folder, list(NAMES), LIMIT, max_tokens=24)
    (tmp_path / "ours.json").write_text(json.dumps(mine))
    command = [PEER, ROOT / "benchmarks/evals_peer.py", folder, DATA, tmp_path / "peer.json"]
    command += ["--tasks", ",".join(NAMES), "--limit", LIMIT, "--max-tokens", 24]
    command += ["--asked", tmp_path / "ours.json"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "hf")}
    subprocess.run(list(map(str, command)), check=True, env=offline, capture_output=True)
    peer = json.loads((tmp_path / "peer.json").read_text())["tasks"]
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
