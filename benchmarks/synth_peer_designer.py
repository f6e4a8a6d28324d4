"""NeMo Data Designer: synth_peer_designer.py JOB.json (see synth.py); one call for each row."""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("NEMO_TELEMETRY_ENABLED", "false")

import data_designer.config as dd
from data_designer.interface import DataDesigner

JOB = json.loads(Path(sys.argv[1]).read_text())
PARSED = "{{ raw | trim }}"
# rows that are written at once: as many as may be in flight, so that few are lost with the process
BUFFER = JOB["concurrency"]


def main() -> None:
    folder = Path(JOB["folder"])
    os.environ["DATA_DESIGNER_HOME"] = str(folder / "home")
    provider = dd.ModelProvider(
        name="fake", endpoint=JOB["url"] + "/v1", provider_type="openai", api_key="none"
    )
    sampling = dd.ChatCompletionInferenceParams(
        max_parallel_requests=JOB["concurrency"],
        max_tokens=JOB["max_tokens"],
        temperature=JOB["temperature"],
    )
    model = dd.ModelConfig(
        alias="m",
        model="fake-llm",
        provider="fake",
        inference_parameters=sampling,
        skip_health_check=True,
    )
    config = dd.DataDesignerConfigBuilder(model_configs=[model])
    config.with_seed_dataset(dd.LocalFileSeedSource(path=JOB["rows"]))
    config.add_column(dd.LLMTextColumnConfig(name="raw", model_alias="m", prompt="{{ prompt }}"))
    config.add_column(dd.ExpressionColumnConfig(name="text", expr=PARSED))
    designer = DataDesigner(artifact_path=folder / "artifacts", model_providers=[provider])
    designer.set_run_config(dd.RunConfig(buffer_size=BUFFER, otel_metrics_port=None))
    rows = len(Path(JOB["rows"]).read_text().splitlines())
    made = designer.create(
        config, num_records=rows, dataset_name="synth", resume=dd.ResumeMode.IF_POSSIBLE
    )
    found = made.load_dataset()
    texts = [text for text in found["text"] if text]
    name = f"data-designer {version('data-designer')}"
    said = {"name": name, "rows": len(found), "texts": texts}
    Path(JOB["out"]).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
