"""A benchmark as a hook: it is measured while a model trains, and changes nothing of it."""

import json

import pytest

from flywright.errors import UserError
from flywright.model import Decoder, load, save
from flywright.recipe.single import train_one


@pytest.fixture
def trained(tokenizer, tiny_spec, tmp_path):
    """A function that runs sft on three dialogues with overrides, and gives its folder."""
    policy, data = tmp_path / "policy", tmp_path / "data"
    save(Decoder(tiny_spec.model_copy(update={"context_length": 128}), seed=0), policy)
    tokenizer.save(policy)
    arc = [{"question": "q", "choices": ["a", "b c"], "gold": n % 2} for n in range(6)]
    (data / "arc").mkdir(parents=True)
    (data / "arc/ARC-Easy_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in arc))
    said = [{"role": "user", "content": "sort b a"}, {"role": "assistant", "content": "a b"}]
    (tmp_path / "talks.jsonl").write_text((json.dumps({"messages": said}) + "\n") * 6)

    def run(name: str, *overrides: str, verb: str = "sft"):
        (tmp_path / f"{name}.toml").write_text(
            f'data = "{tmp_path}/talks.jsonl"\nmodel = "{policy}"\nout = "{tmp_path / name}"\n'
            '[train]\nlearning_rate = 1e-3\nbatch_size = 2\nprecision = "fp32"\n'
        )
        train_one(verb, tmp_path / f"{name}.toml", list(overrides))
        return tmp_path / name

    measured = f'evaluate={{tasks=["arc_easy"],data="{data}",limit=4,RHYTHM}}'
    return run, lambda rhythm: measured.replace("RHYTHM", rhythm)


def test_it_is_measured_by_steps_and_training_is_the_same(trained) -> None:
    run, measured = trained
    plain = load(run("plain") / "weights").state_dict()
    out = run("steps", measured("every_steps=2"))
    found = json.loads((out / "evals/step-000002.json").read_text())
    assert set(found["tasks"]["arc_easy"]["acc"]) == {"mean", "low", "high", "n"}
    assert found["tasks"]["arc_easy"]["acc"]["n"] == 4 and found["tokens"] > 0
    assert not (out / "evals/step-000001.json").exists()
    assert all(plain[n].equal(v) for n, v in load(out / "weights").state_dict().items())


def test_by_tokens_it_is_measured_where_a_multiple_is_passed(trained) -> None:
    run, measured = trained
    lines = (run("plain") / "metrics.jsonl").read_text().splitlines()
    tokens = [json.loads(line)["tokens"] for line in lines]
    out = run("tokens", measured(f"every_tokens={tokens[1]}"))
    assert [path.name for path in sorted((out / "evals").glob("*.json"))] == ["step-000002.json"]


def test_a_rhythm_is_needed_and_a_known_task(trained) -> None:
    run, measured = trained
    with pytest.raises(UserError, match="every_steps or every_tokens, one of the two"):
        run("none", measured("every_steps=0"))
    with pytest.raises(UserError, match="did you mean 'arc_easy'"):
        run("misspelt", measured("every_steps=1").replace("arc_easy", "arc_esy"))
