"""What FP8 costs a finished run's policy: exported as `flywright export --fp8` does, beside itself.

    python benchmarks/fp8.py RUN [--work DIR] [--vllm PYTHON]

On the rated answers that the run held out: KL divergence a token from the policy and perplexity,
for FP8 weights alone, and with activations in FP8 too, a scale a token, as vLLM multiplies; a scale
a row, as exported, beside one a tensor. Then the run's own last evaluation, on the same prompts, of
the weights alone, by the run's own code. With the interpreter of an environment that has vLLM, its
greedy tokens from the exported folder beside ours, activations in FP8 in both. Nothing is written
to RUN. Results in benchmarks/results/fp8.json.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from elsewhere import PROMPTS, greedy, in_vllm
from recording import write_result
from torch import Tensor

from flywright.ask import Sampling
from flywright.errors import FlywrightError, UserError
from flywright.evals.compare import compare
from flywright.evals.run import evaluate, read_results
from flywright.model import Decoder, load_decoder
from flywright.model.export import export
from flywright.model.fp8 import LARGEST, quantised
from flywright.recipe.answerers import engine, reward_scorer
from flywright.records import Prompt, Rating, read_jsonl
from flywright.sandbox import Sandbox, SandboxSettings
from flywright.tokenizer import Tokenizer
from flywright.tokenizer.chat import render


def matrices(model: Decoder) -> Iterator[torch.nn.Linear]:
    """The layers' linear modules, which FP8 holds."""
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            assert isinstance(module, torch.nn.Linear)
            yield module


@contextmanager
def fp8_activations(model: Decoder) -> Iterator[None]:
    """Inputs of the layers' matrices rounded to FP8, a scale a token."""

    def rounded(_module: Any, inputs: tuple[Tensor, ...]) -> Tensor:
        fp8_ND, scale_N1 = quantised(inputs[0].flatten(0, -2))
        return (fp8_ND.float() * scale_N1).view_as(inputs[0]).to(inputs[0].dtype)

    hooks = [module.register_forward_pre_hook(rounded) for module in matrices(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def by_tensor(folder: Path) -> Decoder:
    """The model of a folder with its matrices rounded to FP8 under one scale each."""
    model = load_decoder(folder, torch.float32)
    for module in matrices(model):
        scale = module.weight.detach().abs().max() / LARGEST
        module.weight.data = (module.weight.data / scale).to(torch.float8_e4m3fn).float() * scale
    return model


def held_out(run: Path, tokenizer: Tokenizer) -> Iterator[tuple[Tensor, Tensor]]:
    """Conversations as ids [1, T], and which of the next tokens, [T - 1], are an answer's."""
    for rating in read_jsonl(run / "steps" / "ratings@1" / "heldout.jsonl", Rating):
        found = render(tokenizer, rating.conversation)
        yield torch.tensor([found.ids]), torch.tensor(found.mask)[1:].bool()


@torch.inference_mode()
def token_measures(
    ours: Decoder, policy: Decoder, texts: list[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """KL(policy || ours) a token in nats, both perplexities, share of tokens whose likeliest next
    one is the same; over the answers' tokens, in fp32."""
    apart, nlls, same = [], [], []
    for ids_1T, answer in texts:
        a_TV, b_TV = (
            model(ids_1T)[0, :-1][answer].float().log_softmax(-1) for model in (ours, policy)
        )
        target_T1 = ids_1T[0, 1:][answer][:, None]
        apart.append((b_TV.exp() * (b_TV - a_TV)).sum(-1))
        nlls.append(torch.cat([-x_TV.gather(1, target_T1) for x_TV in (a_TV, b_TV)], 1))
        same.append(a_TV.argmax(-1) == b_TV.argmax(-1))
    kl, nll = torch.cat(apart).double(), torch.cat(nlls).double().mean(0)
    return {
        "kl": kl.mean().item(), "kl_p99": kl.quantile(0.99).item(), "tokens": len(kl),
        "perplexity": nll[0].exp().item(), "perplexity_policy": nll[1].exp().item(),
        "same_top_token": torch.cat(same).double().mean().item(),
    }  # fmt: skip


def last_evaluation(run: Path) -> Path:
    """The evaluation of the policy that the run ended with."""
    policy = (run / "policy").resolve().parent.name.partition("@")[0]  # 2-rpo3
    turn, _, stage = policy.partition("-")
    found = sorted((run / "steps").glob(f"{turn}-eval-{stage}@*"))
    if not found:
        raise UserError(f"{run}: no evaluation of its policy ({policy})")
    return found[-1]


def evaluated(run: Path, folder: Path, out: Path) -> Path:
    """The run's last evaluation with the weights in `folder`; returns where its items are."""
    step = last_evaluation(run)
    settings = json.loads((step / "manifest.json").read_text())["settings"]
    asyncio.run(
        evaluate(
            engine(folder),
            list(read_jsonl(step / "prompts.jsonl", Prompt)),
            out=out,
            scorer=reward_scorer(run / "reward"),
            sandbox=Sandbox(SandboxSettings()),
            sampling=Sampling(max_tokens=settings["max_tokens"]),
        )
    )
    return out


def row(
    what: str, ours: float, peer: float, unit: str, less: bool = False,
    peer_name: str = "the policy as it is", **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """A row of the result; its ratio above 1 says that FP8 is better."""
    ratio = 1.0 if ours == peer else (peer / ours if less else ours / peer)
    said = {"what": what, "ours": round(ours, 6), "peer": round(peer, 6), "peer_name": peer_name}
    return {**said, "ratio": round(ratio, 4), "unit": unit, **more}


def text_rows(run: Path, policy: Path, fp8: Path) -> Iterator[dict[str, Any]]:
    """On the held-out answers, with activations as they are and in FP8."""
    texts = list(held_out(run, Tokenizer.load(policy)))
    whole, by_row = load_decoder(policy, torch.float32), load_decoder(fp8, torch.float32)
    one_scale = by_tensor(policy)
    for what, rounding in (("weights", nullcontext), ("weights and activations", fp8_activations)):
        with rounding(by_row), rounding(one_scale):
            said, other = (token_measures(model, whole, texts) for model in (by_row, one_scale))
        more = {name: said[name] for name in ("kl_p99", "same_top_token", "tokens")}
        yield row(f"FP8 {what}: KL", said["kl"], other["kl"], "nats/token", True,
                  "one scale a tensor", **more)  # fmt: skip
        yield row(f"FP8 {what}: perplexity", said["perplexity"], said["perplexity_policy"],
                  "a token", True)  # fmt: skip


def evaluation_rows(run: Path, policy: Path, fp8: Path, work: Path) -> Iterator[dict[str, Any]]:
    """The run's last evaluation, both asked anew; with the paired difference, FP8 - policy."""
    ours, peer = evaluated(run, fp8, work / "eval-fp8"), evaluated(run, policy, work / "eval")
    metrics = [read_results(folder)["metrics"] for folder in (ours, peer)]
    apart = compare(peer, ours)
    for name in metrics[0]:
        a, b = (found[name]["mean"] for found in metrics)
        kept = {key: apart[name][key] for key in ("mean", "low", "high", "n")}
        yield row(f"FP8 weights: {name}", a, b, "mean of items", difference=kept)


def vllm_row(python: str, fp8: Path) -> dict[str, Any]:
    """Greedy tokens of the exported folder, vLLM's and ours."""
    model, tokenizer = load_decoder(fp8, torch.float32), Tokenizer.load(fp8)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    found = list(chain(*in_vllm(python, fp8, prompts)))
    with fp8_activations(model):
        ours = list(chain(*greedy(model, prompts)))
    same = sum(a[0] == b[0] for a, b in zip(ours, found, strict=True))
    gap = max(abs(a[1] - b[1]) for a, b in zip(ours, found, strict=True))
    name = "vLLM, CPU build, fp32"
    return row("greedy tokens of the FP8 folder", len(ours), same, "tokens the same", True,
               name, largest_logprob_gap=gap)  # fmt: skip


def measure(run: Path, work: Path, vllm: str) -> list[dict[str, Any]]:
    """All rows."""
    policy, fp8 = (run / "policy").resolve(), work / "fp8"
    print(export(policy, fp8, fp8=True), flush=True)
    sizes = [(each / "model.safetensors").stat().st_size for each in (fp8, policy)]
    return [
        row("weights on disk", *sizes, "bytes", True),
        *text_rows(run, policy, fp8),
        *evaluation_rows(run, policy, fp8, work),
        *([vllm_row(vllm, fp8)] if vllm else []),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--work", type=Path, help="keep the export and the items here")
    parser.add_argument("--vllm", metavar="PYTHON", default="", help="that has vLLM")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            rows = measure(given.run, given.work or Path(temporary), given.vllm)
    except FlywrightError as error:
        print(f"fp8: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    command = f"python benchmarks/fp8.py {given.run}" + (" --vllm PYTHON" if given.vllm else "")
    write_result("fp8", command, rows, run=last_evaluation(given.run).name)


if __name__ == "__main__":
    main()
