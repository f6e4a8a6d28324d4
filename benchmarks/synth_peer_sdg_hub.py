"""sdg_hub: synth_peer_sdg_hub.py JOB.json (see synth.py); a flow of four blocks, one call a row."""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import pandas
from sdg_hub.core.flow import Flow

JOB = json.loads(Path(sys.argv[1]).read_text())
SAVE_EVERY = 100  # rows between checkpoints
PROMPT = "- role: user\n  content: |\n    {{prompt}}\n"
FLOW = """
metadata: {name: synth, version: 1.0.0, id: synth-0001, author: bench, description: one call}
blocks:
- block_type: PromptBuilderBlock
  block_config: {block_name: ask, input_cols: [prompt], output_cols: messages,
                 prompt_config_path: prompt.yaml}
- block_type: LLMChatBlock
  block_config: {block_name: answer, input_cols: messages, output_cols: reply, async_mode: true,
                 max_tokens: MAX_TOKENS, temperature: TEMPERATURE}
- block_type: LLMResponseExtractorBlock
  block_config: {block_name: parse, input_cols: reply, field_prefix: "said_",
                 extract_content: true}
"""


def parse(reply: str) -> str:
    return reply.strip()


def main() -> None:
    folder = Path(JOB["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompt.yaml").write_text(PROMPT)
    text = FLOW.replace("MAX_TOKENS", str(JOB["max_tokens"]))
    (folder / "flow.yaml").write_text(text.replace("TEMPERATURE", str(JOB["temperature"])))
    flow = Flow.from_yaml(str(folder / "flow.yaml"))
    flow.set_model_config(model="openai/fake-llm", api_base=JOB["url"] + "/v1", api_key="none")
    found = flow.generate(
        pandas.read_json(JOB["rows"], lines=True),
        checkpoint_dir=str(folder / "checkpoints"),
        save_freq=SAVE_EVERY,
        max_concurrency=JOB["concurrency"],
    )
    column = next(name for name in found.columns if name.startswith("said_"))
    texts = [parse(said) for said in found[column] if said]
    said = {"name": f"sdg_hub {version('sdg_hub')}", "rows": len(found), "texts": texts}
    Path(JOB["out"]).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
