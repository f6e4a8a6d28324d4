"""distilabel: synth_peer_distilabel.py JOB.json (see synth.py); one call for each row."""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromFileSystem
from distilabel.steps.tasks import TextGeneration

JOB = json.loads(Path(sys.argv[1]).read_text())


def parse(reply: str) -> str:
    return reply.strip()


class Answer(TextGeneration):
    def format_output(self, output, input=None):
        return {"generation": parse(output) if output else None}


def main() -> None:
    at_once = JOB["concurrency"]
    with Pipeline(name="synth", cache_dir=Path(JOB["folder"]) / "cache") as pipeline:
        # from a file: with rows in memory the pipeline hashes them all again for every batch
        load = LoadDataFromFileSystem(
            data_files=JOB["rows"],
            filetype="json",
            batch_size=at_once,
            output_mappings={"prompt": "instruction"},
        )
        sampling = {"max_new_tokens": JOB["max_tokens"], "temperature": JOB["temperature"]}
        llm = OpenAILLM(
            model="fake-llm",
            base_url=JOB["url"] + "/v1",
            api_key="none",
            generation_kwargs=sampling,
        )
        load >> Answer(llm=llm, input_batch_size=at_once)
    found = pipeline.run(use_cache=True)["default"]["train"]
    texts = [text for text in found["generation"] if text]
    said = {"name": f"distilabel {version('distilabel')}", "rows": len(found), "texts": texts}
    Path(JOB["out"]).write_text(json.dumps(said))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
