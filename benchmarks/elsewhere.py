"""Does a weights folder open elsewhere, and say the same? vLLM, and llama.cpp's converter.

    python benchmarks/elsewhere.py FOLDER --vllm PYTHON --llama-cpp SOURCES

FOLDER: a language model's folder. PYTHON: the interpreter of an environment with vLLM (its CPU
build needs its own). SOURCES: an unpacked llama.cpp with convert_hf_to_gguf.py; what it writes is
read back by transformers' GGUF loader. Greedy tokens and log-probabilities in fp32 are compared
with ours; transformers' own parity is law 9. Writes benchmarks/results/elsewhere.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from recording import row, write_result

from flywright import load

COMMAND = "python benchmarks/elsewhere.py FOLDER --vllm PYTHON --llama-cpp SOURCES"
PROMPTS = ("Sort these words: tea ant goat", "What is 14 + 5?", "Write one line about a red hat.")
NEW_TOKENS = 24
IN_VLLM = """
import json, sys
from vllm import LLM, SamplingParams
folder, prompts, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
model = LLM(model=folder, dtype="float32", enforce_eager=True, max_model_len=200,
            gpu_memory_utilization=0.3)
chosen = SamplingParams(temperature=0, max_tokens=count, logprobs=0, ignore_eos=True)
found = model.generate([{"prompt_token_ids": ids} for ids in prompts], chosen)
rows = [[[t, one.logprob] for step in each.outputs[0].logprobs for t, one in step.items()]
        for each in found]
print("RESULT" + json.dumps(rows))
"""


def greedy(model: Any, prompts: list[list[int]]) -> list[list[tuple[int, float]]]:
    """(token, log-probability) of each greedy step, recomputed from the whole text."""
    rows = []
    for prompt in prompts:
        ids, row = list(prompt), []
        for _ in range(NEW_TOKENS):
            with torch.no_grad():
                out = model(torch.tensor([ids]))
            logits_V = getattr(out, "logits", out)[0, -1].float()
            logprob, token = torch.log_softmax(logits_V, -1).max(-1)
            row.append((int(token), float(logprob)))
            ids.append(int(token))
        rows.append(row)
    return rows


def in_vllm(python: str, folder: Path, prompts: list[list[int]]) -> list[list[tuple[int, float]]]:
    """The same by vLLM."""
    command = [python, "-c", IN_VLLM, str(folder), json.dumps(prompts), str(NEW_TOKENS)]
    one_process = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=one_process)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not lines:
        raise SystemExit(f"vLLM failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return json.loads(lines[0].removeprefix("RESULT"))


def in_gguf(sources: Path, folder: Path, prompts: list[list[int]]) -> list[list[tuple[int, float]]]:
    """The same by transformers from what llama.cpp's converter wrote."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as out:
        script = str(sources / "convert_hf_to_gguf.py")
        command = [
            sys.executable,
            script,
            str(folder),
            "--outtype",
            "f32",
            "--outfile",
            f"{out}/m.gguf",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the converter failed:\n{done.stderr[-2000:]}")
        model = AutoModelForCausalLM.from_pretrained(out, gguf_file="m.gguf")
    return greedy(model, prompts)


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vllm", default="")
    parser.add_argument("--llama-cpp", type=Path)
    args = parser.parse_args()
    model, tokenizer = load(args.folder)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    expected = greedy(model.float(), prompts)
    others = {}
    if args.vllm:
        others["vLLM, CPU build, fp32"] = in_vllm(args.vllm, args.folder, prompts)
    if args.llama_cpp:
        others["GGUF f32 of llama.cpp's converter"] = in_gguf(args.llama_cpp, args.folder, prompts)
    rows = []
    for name, found in others.items():
        same = sum(
            a[0] == b[0]
            for x, y in zip(expected, found, strict=True)
            for a, b in zip(x, y, strict=True)
        )
        far = max(
            abs(a[1] - b[1])
            for x, y in zip(expected, found, strict=True)
            for a, b in zip(x, y, strict=True)
        )
        total = NEW_TOKENS * len(PROMPTS)
        said = ("greedy tokens, a Nemotron folder", total, same, name, "tokens the same")
        rows.append(row(*said, less_is_better=True) | {"largest_logprob_gap": far})
    write_result("elsewhere", COMMAND, rows)


if __name__ == "__main__":
    main()
