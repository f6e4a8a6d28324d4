"""docs/deployment.md says what the planner, the results, the scripts and the commands say."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text()
COMMANDS = [
    line.split(" # ")[0].split()
    for block in re.findall(r"^```\n(.*?)^```$", PAGE, re.M | re.S)
    for line in block.splitlines()
]


def test_the_tables_are_computed(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import deployment_tables

    assert deployment_tables.placed(PAGE) == PAGE, "run: python benchmarks/deployment_tables.py"
    least = dict(re.findall(r"^\| (\w+ \| \w+) \| (\d+) \|", PAGE, re.M))
    card = {"H200 | bf16": "8", "H100 | bf16": "16", "A100 | bf16": "16", "H100 | fp8": "8"}
    assert least.items() >= card.items()  # SPEC 11.4


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words[0] == "flywright"], ids=" ".join
)
def test_every_option_of_a_command_is_real(words: list[str]) -> None:
    verb = words[1:3] if words[1] == "plan" else words[1:2]
    asked = [sys.executable, "-m", "flywright.cli", *verb, "--help"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    options = [word for word in words if word.startswith("--")]
    assert [option for option in options if not re.search(rf"{option}\b", told)] == []


def test_what_it_names_is_there() -> None:
    files = re.findall(r"(?:deploy|benchmarks|docs)/[\w./]+\.\w+", PAGE)
    assert files and [name for name in files if not (ROOT / name).exists()] == []
    scripts = "".join(path.read_text() for path in (ROOT / "deploy").glob("*.sh"))
    used = {
        name for words in COMMANDS for name in re.findall(r"\b[A-Z_]{2,}(?==)", " ".join(words))
    }
    table = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \|", PAGE, re.M)
    told = {name for cell in table for name in re.findall(r"[A-Z_]+", cell)}
    assert len(told) > 10
    assert [name for name in used | told if f"${{{name}" not in scripts] == []
    rows = re.findall(r"^\| (`[A-Z_]+`.*) \| .* \| (.*)\|$", PAGE, re.M)
    defaults = {
        name: default
        for names, values in rows
        for name, default in zip(
            re.findall(r"[A-Z_]+", names), re.split("[,;]", values), strict=False
        )
    }
    one = (ROOT / "deploy" / "inference.sh").read_text()
    for name, default in re.findall(r"^(?:\w+=\S+ )?(\w+)=\$\{\1:-(\d+)\}", one, re.M):
        assert defaults[name].strip() == default


def test_the_image_is_made_of_what_is_there() -> None:
    lines = (ROOT / "deploy" / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert {"pyproject.toml", "src", "recipes"} <= {*copied}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= {*copied}
    assert 'ENTRYPOINT ["flywright"]' in lines and "flywright" in project["scripts"]
    assert "FROM ${BASE}" in lines and "USER flywright" in lines
    (install,) = (line for line in lines if "pip install" in line)
    extras = re.search(r"\.\[(\w+)\]", install)
    assert extras and extras[1] in project["optional-dependencies"]
