"""datatrove's side of benchmarks/data.py, for a Python that has it (benchmarks/requirements.txt).

    python data_peer.py parts|chain SAMPLE_FOLDER TOKENIZER.json WORK_FOLDER

Prints JSON: seconds of each part in one process (processor time), or of the chain in two.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}

from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import (
    C4QualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer, DocumentTokenizerMerger
from datatrove.pipeline.writers import JsonlWriter

PROCESSES = 2


def quality_rules() -> list:
    """The rules that ours are like; three sentences, as in C4's paper."""
    return [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(min_num_sentences=3)]


def run(pipeline: list, tasks: int, logs: Path) -> None:
    """One step of datatrove over `tasks` tasks, in at most two processes."""
    logs = logs / str(len(list(logs.glob("*"))))
    workers = min(tasks, PROCESSES)
    LocalPipelineExecutor(pipeline, tasks, workers, logging_dir=str(logs)).run()


def chain(sample: str, tokenizer: str, work: Path) -> dict[str, float]:
    """Files to one token file: rules, MinHash with 14 bands of 8, tokenizer, merge."""
    shutil.rmtree(work, ignore_errors=True)
    step = {name: str(work / name) for name in ("good", "sigs", "found", "ids", "kept", "tokens")}
    logs, config, started = work / "logs", MinhashConfig(), time.perf_counter()
    rules = quality_rules()
    run([JsonlReader(sample), *rules, JsonlWriter(step["good"])], PROCESSES, logs)
    run([JsonlReader(step["good"]), MinhashDedupSignature(step["sigs"], config)], PROCESSES, logs)
    run([MinhashDedupBuckets(step["sigs"], step["found"], config=config)], 14, logs)
    run([MinhashDedupCluster(step["found"], step["ids"], config=config)], 1, logs)
    fresh = [JsonlReader(step["good"]), MinhashDedupFilter(step["ids"])]
    encode = DocumentTokenizer(
        step["tokens"], tokenizer, eos_token="</s>", shuffle_documents=False, save_index=True
    )
    run([*fresh, encode], PROCESSES, logs)
    merged = str(work / "merged")
    run([DocumentTokenizerMerger(step["tokens"], merged, "all", shuffle=False)], 1, logs)
    seconds = time.perf_counter() - started
    tokens = sum(path.stat().st_size for path in (work / "merged").glob("*.ds")) // 2
    return {"seconds": seconds, "tokens": tokens}


def parts(sample: str, tokenizer: str) -> dict[str, float]:
    """Seconds of processor time for each part, over all of the sample's texts."""
    from tokenizers import Tokenizer

    paths = sorted(Path(sample).glob("*.jsonl"))
    texts = [json.loads(line)["text"] for path in paths for line in path.open()]
    rules, encoder = quality_rules(), Tokenizer.from_file(tokenizer)
    signer = MinhashDedupSignature("/tmp")
    rules[0].filter(Document(texts[0], "0"))  # loads the word splitter
    encoder.encode(texts[0])
    seconds = {}
    started = time.process_time()
    documents = [Document(text, str(n)) for n, text in enumerate(texts)]
    kept = sum(all(rule.filter(one) is True for rule in rules) for one in documents)
    seconds["rules"] = time.process_time() - started
    started = time.process_time()
    for text in texts:
        signer.get_signature(signer.get_shingles(text))
    seconds["signatures"] = time.process_time() - started
    started = time.process_time()
    for start in range(0, len(texts), 1000):
        encoder.encode_batch(texts[start : start + 1000])
    seconds["tokens"] = time.process_time() - started
    return {**seconds, "kept": kept}


if __name__ == "__main__":
    what, sample, tokenizer, work = sys.argv[1:]
    found = chain(sample, tokenizer, Path(work)) if what == "chain" else parts(sample, tokenizer)
    print(json.dumps(found))
