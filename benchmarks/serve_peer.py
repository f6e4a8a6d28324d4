"""One engine in its own process, for benchmarks/serve.py: `serve_peer.py KIND JOB`.

KIND is a key of KINDS; JOB (JSON) names a folder of weights, threads and cores. It loads once, says
who it is, then obeys lines on stdin and answers each with one line of JSON:

    {"how": "together", "prompts": [[ids]], "texts": [...], "counts": [answer tokens]}
    {"seconds": ..., "answers": [[ids]], "peak_mib": ...}

Each kind runs in the python of its own environment: only the standard library and what the kind
itself needs is imported.
"""

import asyncio
import ctypes
import http.client
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Ids = list[int]
Job = dict[str, Any]
PAD = 1
CONTEXT = 512  # tokens that a request may take, for engines that reserve it


class Flywright:
    """Our engine."""

    def __init__(self, job: Job):
        import torch

        from flywright import Engine
        from flywright.ask.protocol import Sampling

        torch.set_num_threads(job["threads"])
        self.name = "flywright"
        self.sampling = Sampling
        self.engine = Engine(job["folder"], max_batch=job["batch"], dtype=torch.bfloat16)

    def together(self, prompts: list[Ids], texts: list[str], counts: list[int]) -> list[Ids]:
        """All requests at once."""
        if len({*counts}) == 1:
            found = self.engine.generate(texts, max_new_tokens=counts[0])
        else:
            found = asyncio.run(self._all(texts, counts))
        return [list(one.token_ids) for one in found]

    async def _all(self, texts: list[str], counts: list[int]) -> list[Any]:
        asked = zip(texts, counts, strict=True)
        calls = [self.engine.complete(text, self.sampling(max_tokens=n)) for text, n in asked]
        return await asyncio.gather(*calls)


class Transformers:
    """transformers' generate, on a static batch or one request after another; its own batching."""

    def __init__(self, job: Job):
        import torch
        import transformers

        torch.set_num_threads(job["threads"])
        transformers.logging.set_verbosity_error()
        self.torch, self.transformers = torch, transformers
        self.name = f"transformers {transformers.__version__}"
        auto = transformers.AutoModelForCausalLM
        self.model = auto.from_pretrained(job["folder"], dtype=torch.bfloat16).eval()

    def together(self, prompts: list[Ids], texts: list[str], counts: list[int]) -> list[Ids]:
        """One static batch; prompts and answers are equally long."""
        ids_BT = self.torch.tensor(prompts)
        with self.torch.inference_mode():
            found_BT = self.model.generate(
                input_ids=ids_BT,
                attention_mask=self.torch.ones_like(ids_BT),
                max_new_tokens=counts[0],
                do_sample=False,
                pad_token_id=PAD,
            )
        return found_BT[:, ids_BT.shape[1] :].tolist()

    def one_by_one(self, prompts: list[Ids], texts: list[str], counts: list[int]) -> list[Ids]:
        """Each request alone, in order: what serving without batching does."""
        asked = zip(prompts, counts, strict=True)
        return [self.together([ids], [], [count])[0] for ids, count in asked]

    def continuous(self, prompts: list[Ids], texts: list[str], counts: list[int]) -> list[Ids]:
        """Its continuous batching. Raises what it raises: it does not run on every family."""
        config = self.transformers.GenerationConfig(
            max_new_tokens=counts[0], do_sample=False, pad_token_id=PAD, eos_token_id=-1
        )
        found = self.model.generate_batch(
            inputs=prompts, generation_config=config, progress_bar=False
        )
        outputs = list(found.values())
        if len(outputs) < len(prompts):
            raise RuntimeError(f"{len(outputs)} of {len(prompts)} requests were answered")
        for one in outputs:
            if one.error:
                raise RuntimeError(one.error)
        return [list(one.generated_tokens) for one in outputs]


class Judge:
    """transformers in fp32: what it would have said in each place of an answer."""

    def __init__(self, job: Job):
        import torch
        import transformers

        torch.set_num_threads(job["threads"])
        self.torch = torch
        self.name = f"transformers {transformers.__version__} fp32"
        auto = transformers.AutoModelForCausalLM
        self.model = auto.from_pretrained(job["folder"], dtype=torch.float32).eval()

    def judge(self, prompts: list[Ids], answers: list[Ids]) -> dict[str, float]:
        """Share of answer tokens that are its greedy ones; how much less likely they are (nats)."""
        same, short, count = 0, 0.0, 0
        for prompt, answer in zip(prompts, answers, strict=True):
            ids_T = self.torch.tensor([*prompt, *answer])
            with self.torch.inference_mode():
                logits_TV = self.model(ids_T[None]).logits[0, len(prompt) - 1 : -1]
            logprobs_TV = logits_TV.double().log_softmax(-1)
            best_T = logprobs_TV.max(-1).values
            given_T = logprobs_TV.gather(-1, ids_T[len(prompt) :, None])[:, 0]
            same += int((given_T == best_T).sum())
            short += float((best_T - given_T).sum())
            count += len(answer)
        return {"same_share": same / count, "mean_shortfall_nats": short / count, "tokens": count}


class Vllm:
    """vLLM's CPU build, offline."""

    def __init__(self, job: Job):
        # set before the import: it binds its threads itself, and one core fewer unless told
        cores = ",".join(map(str, job["cores"]))
        os.environ |= {
            "VLLM_CPU_OMP_THREADS_BIND": cores,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_CACHE_ROOT": str(Path(job["folder"]).parent / "vllm-cache"),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: it has but two cores
        }
        from vllm import LLM, SamplingParams

        self.name = f"vllm-cpu {importlib.metadata.version('vllm-cpu')}"
        self.sampling = SamplingParams
        self.model = LLM(
            model=job["folder"],
            dtype="bfloat16",
            max_model_len=CONTEXT,
            max_num_seqs=job["batch"],
        )

    def together(self, prompts: list[Ids], texts: list[str], counts: list[int]) -> list[Ids]:
        """All requests at once."""
        found = self.model.generate(
            [{"prompt_token_ids": ids} for ids in prompts],
            [self.sampling(temperature=0.0, max_tokens=count) for count in counts],
            use_tqdm=False,
        )
        return [list(one.outputs[0].token_ids) for one in found]


class LlamaPython:
    """llama-cpp-python: eval and the largest logit, its fastest way from Python; one at a time."""

    def __init__(self, job: Job):
        import llama_cpp
        import numpy

        self.numpy = numpy
        self.name = f"llama-cpp-python {llama_cpp.__version__} {Path(job['folder']).stem}"
        self.model = llama_cpp.Llama(
            model_path=job["folder"],
            n_ctx=CONTEXT,
            n_threads=job["threads"],
            n_threads_batch=job["threads"],
            verbose=False,
        )

    def together(self, prompts: list[Ids], texts: list[str], counts: list[int]) -> list[Ids]:
        """One after another: it has no batching."""
        return [self._answer(ids, n) for ids, n in zip(prompts, counts, strict=True)]

    def _answer(self, ids: Ids, count: int) -> Ids:
        self.model.reset()
        answer: Ids = []
        for _ in range(count):
            self.model.eval(answer[-1:] or ids)
            pointer = self.model._ctx.get_logits_ith(-1)
            logits_V = self.numpy.ctypeslib.as_array(pointer, shape=(self.model.n_vocab(),))
            answer.append(int(logits_V.argmax()))
        return answer


class LlamaServer:
    """llama-server, asked over HTTP by as many threads as there are requests."""

    def __init__(self, job: Job):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        slots, threads = str(job["batch"]), str(job["threads"])
        command = [job["server"], "-m", job["folder"], "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "-t", threads, "-tb", threads, "-np", slots]
        # its cache of old prompts would only cost here: no prompt comes twice
        command += ["-c", str(job["batch"] * CONTEXT), "--cache-ram", "0"]
        self.server = subprocess.Popen(
            command, stdout=2, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent
        )
        self.name = f"llama-server {Path(job['folder']).stem}"
        self.pool = ThreadPoolExecutor(job["batch"])
        while self.server.poll() is None and self._call("GET", "/health")[0] != 200:
            time.sleep(0.1)
        if self.server.poll() is not None:
            raise RuntimeError(f"llama-server ended with {self.server.returncode}")

    def pids(self) -> list[int]:
        """Whose memory counts: not the client's."""
        return [self.server.pid]

    def together(self, prompts: list[Ids], texts: list[str], counts: list[int]) -> list[Ids]:
        """All requests at once."""
        return list(self.pool.map(self._answer, prompts, counts))

    def _answer(self, ids: Ids, count: int) -> Ids:
        greedy = {"temperature": 0.0, "top_k": 1, "samplers": ["top_k"]}
        body = {"prompt": ids, "n_predict": count, "cache_prompt": False, "return_tokens": True}
        status, found = self._call("POST", "/completion", json.dumps({**body, **greedy}))
        if status != 200:
            raise RuntimeError(f"llama-server answered {status}: {found[:200]!r}")
        return json.loads(found)["tokens"]

    def _call(self, verb: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)  # a fresh one each
        try:
            line.request(verb, path, body, {"Content-Type": "application/json"})
            answer = line.getresponse()
            return answer.status, answer.read()
        except ConnectionError:
            return 0, b"no connection"
        finally:
            line.close()


class Scores:
    """Our scorer and log-probabilities of given texts, and naive loops of one forward each."""

    def __init__(self, job: Job):
        import torch

        from flywright import Engine
        from flywright.generate import RewardScorer
        from flywright.model import load

        torch.set_num_threads(job["threads"])
        self.torch, self.name = torch, "flywright"
        self.engine = Engine(job["folder"], dtype=torch.bfloat16)
        self.reader = load(job["folder"], torch.bfloat16)
        self.rewards = load(job["reward"], torch.bfloat16)
        self.tokenizer = self.engine.tokenizer
        self.scorer = RewardScorer(self.rewards, self.tokenizer)

    def score(self, pairs: list[tuple[str, str]]) -> list[list[float]]:
        """Attributes of each (prompt, answer)."""
        found = self.scorer.score_many(self._conversations(pairs))
        return [list(one.values()) for one in found]

    def score_naively(self, pairs: list[tuple[str, str]]) -> list[list[float]]:
        """The same, one forward each."""
        from flywright.tokenizer import chat

        found = []
        with self.torch.inference_mode():
            for conversation in self._conversations(pairs):
                ids = chat.reward_ids(self.tokenizer, conversation)
                found.append(self.rewards(self.torch.tensor([ids]))[0].tolist())
        return found

    def logprobs(self, questions: list[tuple[str, list[str]]]) -> list[list[float]]:
        """Of each (context, continuations): log-probabilities of the continuations."""

        async def ask() -> list[list[float]]:
            return await asyncio.gather(*(self.engine.logprobs(*one) for one in questions))

        return asyncio.run(ask())

    def logprobs_naively(self, questions: list[tuple[str, list[str]]]) -> list[list[float]]:
        """The same, one forward for each continuation."""
        return [[self._logprob(context, one) for one in found] for context, found in questions]

    def _logprob(self, context: str, text: str) -> float:
        before, after = self.tokenizer.raw_ids(context), self.tokenizer.raw_ids(text, True)
        with self.torch.inference_mode():
            logits_TV = self.reader(self.torch.tensor([before + after]))[0, len(before) - 1 : -1]
            logprobs_TV = logits_TV.float().log_softmax(-1)
            return float(logprobs_TV.gather(-1, self.torch.tensor(after)[:, None]).sum())

    def _conversations(self, pairs: list[tuple[str, str]]) -> list[Any]:
        from flywright.records import Conversation

        return [Conversation.of(prompt, answer) for prompt, answer in pairs]


class Limits:
    """The memory's speed: what a token at batch 1 must at least read, read as fast as torch can."""

    def __init__(self, job: Job):
        import torch

        torch.set_num_threads(job["threads"])
        self.torch, self.name = torch, f"torch {torch.__version__}"
        self.matrices = [
            torch.randn(shape, dtype=torch.bfloat16) for shape in json.loads(job["shapes"])
        ]
        self.plain = torch.zeros(1 << 28)  # 1 GiB
        self.other = torch.zeros(1 << 28)

    def bandwidth(self) -> dict[str, float]:
        """GB/s of torch.mv on matrices of the model's shapes, of a sum, and of a copy."""
        inputs = {one.shape[1]: self.torch.randn(one.shape[1]).bfloat16() for one in self.matrices}

        def multiply() -> None:
            for one in self.matrices:
                self.torch.mv(one, inputs[one.shape[1]])

        size = sum(one.numel() * 2 for one in self.matrices)
        with self.torch.inference_mode():
            return {
                "mv": size / fastest(multiply) / 1e9,
                "sum": self.plain.nbytes / fastest(self.plain.sum) / 1e9,
                "copy": 2 * self.plain.nbytes / fastest(lambda: self.other.copy_(self.plain)) / 1e9,
            }


def fastest(work: Any, budget_seconds: float = 0.7) -> float:
    """Least wall seconds of a call, in about a budget of them: a limit is what can be reached."""
    took: list[float] = []
    while sum(took) < budget_seconds or len(took) < 5:
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return min(took)


def die_with_parent() -> None:
    """This process, even a stopped one, is killed when its parent ends (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


KINDS: dict[str, Any] = {
    "flywright": Flywright,
    "transformers": Transformers,
    "vllm": Vllm,
    "llama-python": LlamaPython,
    "llama-server": LlamaServer,
    "judge": Judge,
    "scores": Scores,
    "limits": Limits,
}


def forget_peak(pids: list[int]) -> None:
    """From now on, VmHWM is the peak since now."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pids: list[int]) -> float:
    """Peak resident memory of processes, MiB."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("VmHWM")]
    return sum(int(line.split()[1]) for line in lines) / 1024


def obey(engine: Any, command: dict[str, Any]) -> dict[str, Any]:
    """One command's answer."""
    pids = engine.pids() if hasattr(engine, "pids") else [os.getpid()]
    method = getattr(engine, command.pop("how"))
    forget_peak(pids)
    start = time.perf_counter()
    answers = method(**command)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "answers": answers, "peak_mib": peak_mib(pids)}


def main() -> None:
    """Load, say who it is, obey until stdin ends."""
    out = os.fdopen(os.dup(1), "w")  # the answers' own way out: engines print what they like
    os.dup2(2, 1)
    die_with_parent()
    kind, job = sys.argv[1], json.loads(sys.argv[2])
    os.sched_setaffinity(0, job["cores"])
    start = time.perf_counter()
    engine = KINDS[kind](job)
    hello: dict[str, Any] = {"name": engine.name, "load_seconds": time.perf_counter() - start}
    print(json.dumps(hello), file=out, flush=True)
    for line in sys.stdin:
        try:
            said = obey(engine, json.loads(line))
        except Exception as error:  # what a peer cannot do is a result too
            said = {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        print(json.dumps(said), file=out, flush=True)
    os._exit(0)  # some engines' threads never end


if __name__ == "__main__":
    main()
