"""bespoke curator: synth_peer_curator.py JOB.json (see synth.py); one call for each row."""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ.update(
    TELEMETRY_ENABLED="0",
    CURATOR_VIEWER="0",
    CURATOR_DISABLE_RICH_DISPLAY="1",
    HF_HUB_OFFLINE="1",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    OPENAI_API_KEY="none",
)
JOB = json.loads(Path(sys.argv[1]).read_text())
os.environ["HF_HOME"] = str(Path(JOB["folder"]) / "hf")

from bespokelabs import curator  # noqa: E402
from datasets import Dataset  # noqa: E402


def parse_text(reply: str) -> str:
    return reply.strip()


class Answer(curator.LLM):
    def prompt(self, row):
        return row["prompt"]

    def parse(self, row, response):
        return {"id": row["id"], "text": parse_text(response)}


def main() -> None:
    rows = [json.loads(line) for line in Path(JOB["rows"]).read_text().splitlines()]
    answer = Answer(
        model_name="openai/fake-llm",
        backend="litellm",
        backend_params={
            "base_url": JOB["url"] + "/v1",
            "api_key": "none",
            "max_concurrent_requests": JOB["concurrency"],
            "max_requests_per_minute": 1_000_000,
            "max_tokens_per_minute": 1_000_000_000,
            "in_mtok_cost": 0,
            "out_mtok_cost": 0,
        },
        generation_params={"max_tokens": JOB["max_tokens"], "temperature": JOB["temperature"]},
    )
    reply = answer(Dataset.from_list(rows), working_dir=JOB["folder"])
    found = reply.dataset if hasattr(reply, "dataset") else reply
    texts = [text for text in found["text"] if text]
    name = f"bespoke curator {version('bespokelabs-curator')}"
    said = {"name": name, "rows": len(found), "texts": texts}
    Path(JOB["out"]).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
