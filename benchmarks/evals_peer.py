"""lm-evaluation-harness on the same files: its task definitions, with our data under them.

    PEER/bin/python benchmarks/evals_peer.py MODEL DATA OUT --tasks mmlu:anatomy --limit 50

Runs in the harness's own environment (pip install "lm_eval[hf]" torch==2.13.0) and uses nothing of
this project. The rows are written in the layout that the harness's tasks expect; prompts, filters
and metrics are theirs, and examples that are fixed. Drawn ones depend there on how many documents
were asked before, so that ours are handed in (--asked). OUT gets {"versions", "tasks": {name:
{"seconds", "results", "samples"}}}.
"""

import argparse
import bz2
import csv
import gzip
import io
import json
import time
import zipfile
from pathlib import Path

import lm_eval
import torch
import yaml
from lm_eval.api import samplers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

THEIRS = Path(lm_eval.__file__).parent / "tasks"


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def ai2(path):
    """{question, choices, gold} as the hub has it."""
    for row in rows(path):
        labels = list("ABCDEFGH"[: len(row["choices"])])
        choices = {"text": row["choices"], "label": labels}
        answer = {"choices": choices, "answerKey": labels[row["gold"]]}
        yield {"question": row["question"], "question_stem": row["question"], **answer}


def hellaswag(path):
    with bz2.open(path, "rt", encoding="utf-8") as stream:
        lines = stream.read().split("\n")
    for start in range(0, len(lines) - 5, 6):
        label, _, rest = lines[start].partition(": ")
        found = {"activity_label": label, "ctx_a": rest, "ctx_b": "", "label": lines[start + 1]}
        yield {**found, "endings": lines[start + 2 : start + 6]}


def boolq(path):
    for row in rows(path):
        passage, _, rest = row["query"].rpartition("\nQuestion: ")
        label = int(row["choices"][row["gold"]] == "yes")
        question = rest.removesuffix("?\nAnswer:")
        yield {"passage": passage, "question": question, "label": label}


def mmlu(path, subject, which):
    with zipfile.ZipFile(path) as archive:
        text = archive.read(f"data/{which}/{subject}_{which}.csv").decode()
    for question, *choices, answer in csv.reader(io.StringIO(text, newline="")):
        yield {"question": question, "choices": choices, "answer": "ABCD".index(answer)}


def mgsm(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        question, _, answer = line.rpartition("\t")
        yield {"question": question, "answer": None, "answer_number": answer}


def bbh(path):
    return json.loads(path.read_text())["examples"]


def solved(doc):
    """A document as a few-shot example, as the tasks here that draw theirs have it."""
    if "sentence" in doc:  # winogrande: the two ends of a sentence around the right name
        head, _, tail = doc["sentence"].partition("_")
        return f"{head}{doc['option' + doc['answer']]} {tail.strip()}"
    if "endings" in doc:
        return f"{doc['query']} {doc['choices'][int(doc['gold'])]}"
    answer = doc.get("answer")
    if answer is None:
        answer = doc["choices"]["text"][doc["choices"]["label"].index(doc["answerKey"])]
    return f"Question: {doc['question']}\nAnswer: {answer}"


def hand_in(texts):
    """Let the harness take the examples that stand in these prompts, one prompt after the other."""
    turns, known = iter(texts), {}

    def sample(self, n, eval_doc=None, df=None, **_):
        if not known:
            known.update((solved(doc), doc) for doc in self.fewshot_docs())
        examples = next(turns).split("\n\n")[-1 - n : -1]
        return [known[example] for example in examples]

    samplers.ContextSampler.sample = sample


MATH = {
    "algebra": "Algebra",
    "counting_and_prob": "Counting & Probability",
    "geometry": "Geometry",
    "intermediate_algebra": "Intermediate Algebra",
    "num_theory": "Number Theory",
    "prealgebra": "Prealgebra",
    "precalc": "Precalculus",
}


def sources(data, name, split):
    """(their task file, {split: rows}, what else to override) of one of our tasks."""
    if name.startswith("arc_"):
        of = "Challenge" if name == "arc_challenge" else "Easy"
        path = lambda part: ai2(data / f"arc/ARC-{of}_{part}.jsonl.gz")  # noqa: E731
        return f"arc/{name}.yaml", {"train": path("train"), "test": path("test")}, {}
    if name == "hellaswag":
        own = {"training_split": None, "test_split": "validation", "fewshot_split": "validation"}
        found = hellaswag(data / "hellaswag/hellaswag_val_full.txt.bz2")
        return "hellaswag/hellaswag.yaml", {"validation": found}, own
    if name == "winogrande":
        found = {"train": "train_l", "validation": "dev"}
        found = {key: rows(data / f"winogrande/{file}.jsonl.gz") for key, file in found.items()}
        return "winogrande/default.yaml", found, {}
    if name == "openbookqa":
        found = {key: ai2(data / f"openbookqa/{key}.jsonl.gz") for key in ("train", "test")}
        return "openbookqa/openbookqa.yaml", found, {"validation_split": None}
    if name == "piqa":
        found = rows(data / "eval_extra/piqa_val.jsonl.gz")
        return "piqa/piqa.yaml", {"validation": found}, {"training_split": None}
    if name == "boolq":
        found = boolq(data / "eval_extra/boolq_val.jsonl.gz")
        own = {"training_split": None}
        return "super_glue/boolq/default.yaml", {"validation": found}, own
    if name == "mmlu":
        found = {which: mmlu(data / "mmlu/mmlu.zip", split, which) for which in ("test", "dev")}
        return f"mmlu/default/mmlu_{split}.yaml", found, {}
    if name in ("gsm8k_base", "gsm8k_cot"):
        found = {key: rows(data / f"gsm8k/{key}.jsonl.gz") for key in ("train", "test")}
        file = {"gsm8k_base": "gsm8k", "gsm8k_cot": "gsm8k-cot"}[name]
        return f"gsm8k/{file}.yaml", found, {}
    if name == "bbh":
        return f"bbh/cot_fewshot/{split}.yaml", {"test": bbh(data / f"bbh/bbh/{split}.json")}, {}
    if name == "mgsm":
        found = {"test": mgsm(data / f"eval_extra/mgsm/mgsm_{split}.tsv")}
        return f"mgsm/en_cot/mgsm_en_cot_{split}.yaml", found, {"training_split": None}
    raise SystemExit(f"no such task here: {name}")


def prepare(data, out, asked):
    """Write a task's rows and its definition; returns the name it has there."""
    name, _, split = asked.partition(":")
    name, _, shots = name.partition("@")
    include, splits, own = sources(data, name, split)
    files = {}
    for key, found in splits.items():
        files[key] = str(out / f"{name}-{split}-{key}.jsonl")
        Path(files[key]).write_text("".join(json.dumps(row) + "\n" for row in found))
    called = f"ours_{name}_{split}_{shots or 'n'}"
    config = {"include": str(THEIRS / include), "task": called, "dataset_path": "json", "tag": None}
    config |= {"dataset_name": None, "dataset_kwargs": {"data_files": files}, **own}
    (out / f"{called}.yaml").write_text(yaml.safe_dump(config))
    return called, int(shots) if shots else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", required=True, help="NAME[@SHOTS][:SPLIT], comma-separated")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch", default="8")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--asked", type=Path, help="our prompts, whose drawn examples are taken")
    given = parser.parse_args()
    folder = given.out.parent / f"{given.out.stem}-tasks"
    folder.mkdir(parents=True, exist_ok=True)
    names = {asked: prepare(given.data, folder, asked) for asked in given.tasks.split(",")}
    manager = TaskManager(include_path=str(folder))
    batch = given.batch if given.batch.startswith("auto") else int(given.batch)
    model = HFLM(pretrained=given.model, dtype="float32", device="cpu", batch_size=batch)
    ours = json.loads(given.asked.read_text()) if given.asked else {}
    found = {}
    for asked, (called, shots) in names.items():
        hand_in(
            one["asks"][0][0] if "asks" in one else one["context"]
            for one in ours.get(asked, {"asked": ()})["asked"]
        )
        more = {"gen_kwargs": {"max_gen_toks": given.max_tokens}} if given.max_tokens else {}
        start = time.perf_counter()
        said = lm_eval.simple_evaluate(
            model,
            tasks=[called],
            task_manager=manager,
            limit=given.limit,
            num_fewshot=shots,
            log_samples=True,
            bootstrap_iters=1000,  # none is used for means: they have a formula
            **more,
        )
        seconds = time.perf_counter() - start
        samples = [
            {key: one[key] for key in ("doc_id", "filter", "arguments", "resps")}
            for one in said["samples"][called]
        ]
        results = {key: value for key, value in said["results"][called].items() if "," in key}
        found[asked] = {"seconds": seconds, "results": results, "samples": samples}
    version = {"lm_eval": lm_eval.__version__, "torch": torch.__version__}
    given.out.write_text(json.dumps({"versions": version, "tasks": found}, default=str))


if __name__ == "__main__":
    main()
