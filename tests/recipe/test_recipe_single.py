"""One training step on files as people have them; `look` shows what the step sees."""

import json
from pathlib import Path

import pytest
import torch

from flywright.cli import main
from flywright.errors import UserError
from flywright.model import Decoder, RewardModel, load, save
from flywright.recipe.look import look_at
from flywright.recipe.single import train_one
from flywright.tokenizer import chat

GOLDEN = Path(__file__).parents[1] / "golden" / "formats"
EXTRA = {"dpo": "beta = 0.1\nsft_weight = 0.01\n", "rpo": "beta = 0.1\nsft_weight = 0.01\n"}


@pytest.fixture
def policy(tokenizer, tiny_spec, tmp_path) -> Path:
    folder = tmp_path / "policy"
    save(Decoder(tiny_spec.model_copy(update={"context_length": 256}), seed=0), folder)
    tokenizer.save(folder)
    return folder


def step(verb: str, data: Path, policy: Path, *overrides: str) -> Path:
    out = policy.parent / verb
    settings = policy.parent / f"{verb}.toml"
    settings.write_text(
        f'data = "{data}"\nmodel = "{policy}"\nout = "{out}"\n{EXTRA.get(verb, "")}'
        '[train]\nlearning_rate = 1e-3\nbatch_size = 2\nprecision = "fp32"\n'
    )
    train_one(verb, settings, list(overrides))
    return out


@pytest.mark.parametrize(
    ("verb", "name", "line"),
    [
        ("sft", "nemo_chat.jsonl", "NeMo SFT chat, 2 dialogues, 2 left out: no answer (1)"),
        ("sft", "sharegpt.json", "ShareGPT, 2 dialogues, 2 left out: not in turn (1)"),
        (
            "dpo",
            "message_pairs.jsonl",
            "chosen and rejected, 3 comparisons, 1 left out: two prompts (1)",
        ),
        ("rpo", "aligner_strings.jsonl", "NeMo-Aligner pairs (strings), 2 comparisons, 1 left out"),
    ],
)
def test_a_verb_trains_on_a_file_as_it_is_and_says_of_which_form(verb, name, line, policy):
    out = step(verb, GOLDEN / name, policy)
    assert f"{name}: {line}" in (out / "log.txt").read_text(encoding="utf-8")
    assert load(out / "weights").spec.context_length == 256


def test_reward_regresses_on_ratings_and_ranks_pairs(policy):
    model = load(step("reward", GOLDEN / "aligner_labels.jsonl", policy) / "weights")
    assert model.score.weight[1:].any()  # type: ignore[union-attr]
    (policy.parent / "reward").rename(policy.parent / "regressed")
    model = load(step("reward", GOLDEN / "helpsteer2_preference.jsonl", policy) / "weights")
    assert model.score.weight[0].any() and not model.score.weight[1:].any()  # type: ignore[union-attr]


@pytest.mark.parametrize("by", ["scaled", "margin"])
def test_pairs_are_ranked_by_how_much_better_they_were_found(policy, by):
    data = GOLDEN / "helpsteer2_preference.jsonl"
    out = step("reward", data, policy, f'ranking="{by}"')
    assert isinstance(load(out / "weights"), RewardModel)
    (policy.parent / "reward").rename(policy.parent / "before")
    with pytest.raises(UserError, match="ranking by strength needs"):
        step("reward", GOLDEN / "message_pairs.jsonl", policy, f'ranking="{by}"')


@pytest.mark.parametrize("verb, name", [("sft", "nemo_chat.jsonl"), ("dpo", "message_pairs.jsonl"),
                                        ("reward", "helpsteer2.jsonl")])  # fmt: skip
def test_adapters_are_kept_and_merged(policy, verb, name):
    out = step(verb, GOLDEN / name, policy, "train.lora={rank=2, targets=['q_proj']}",
                         "train.learning_rate=0.05")  # fmt: skip
    before, after = load(policy).state_dict(), load(out / "weights").state_dict()
    changed = {key for key, value in before.items() if key in after and not value.equal(after[key])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}
    assert (out / "adapter" / "adapter_config.json").exists()


def test_a_share_is_put_aside_and_measured(policy):
    data = GOLDEN / "message_pairs.jsonl"
    out = step("dpo", data, policy, "train.validation_share=0.34")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert "validation_loss" in lines[-1] and lines[-1]["step"] == 1  # two of three are trained on
    assert not (out / "state").exists()


def test_a_file_for_another_verb_is_refused_and_nothing_is_begun(policy):
    with pytest.raises(UserError, match=r"HelpSteer2 ratings: ratings, where dialogues are needed"):
        step("sft", GOLDEN / "helpsteer2.jsonl", policy)
    assert not (policy.parent / "sft").exists()


def test_rpo_names_the_pair_that_has_no_reward(policy):
    with pytest.raises(UserError, match=r"message_pairs\.jsonl:1: RPO needs both rewards"):
        step("rpo", GOLDEN / "message_pairs.jsonl", policy)


def test_look_shows_every_token_and_what_is_trained(policy, tokenizer):
    seen = look_at(GOLDEN / "nemo_chat.jsonl", policy, 2)
    assert seen["file"].endswith("NeMo SFT chat, 2 dialogues")
    first = [row for row in seen["tokens"] if row["record"] == 1]
    ids = [row["id"] for row in first]
    said = chat.parse(tokenizer, ids[:-1])
    assert [turn.content for turn in said.turns][-1] == "11\n\n(elf)"
    assert [row["place"] for row in first] == list(range(len(ids)))
    trained = [row["id"] for row in first if row["trained"]]
    assert tokenizer.decode(trained) == "7\n11\n\n(elf)\n"
    assert first[-1]["trained"] and first[-1]["piece"] == "<extra_id_1>"


def test_look_shows_a_pair_with_its_prompt_once_and_both_answers(policy, tokenizer):
    seen = look_at(GOLDEN / "aligner_strings.jsonl", policy, 1)
    parts = {
        part: [row["id"] for row in seen["tokens"] if row["part"] == part]
        for part in ("both", "chosen", "rejected")
    }
    prompt = chat.raw_ids(tokenizer, "<extra_id_0>System\n\n<extra_id_1>User\nName a prime.\n")
    assert parts["both"][: len(prompt)] == prompt
    assert tokenizer.decode(parts["chosen"]) == "7\n"
    assert tokenizer.decode(parts["rejected"]) == "9\n"
    assert [row["trained"] for row in seen["tokens"]] == [
        row["part"] != "both" for row in seen["tokens"]
    ]


def test_look_shows_how_records_are_packed(policy):
    seen = look_at(GOLDEN / "aligner_messages.jsonl", policy, 2)
    rows = seen["packing"]
    parts = [f"{n} {part}" for n in (1, 2) for part in ("both", "chosen", "rejected")]
    assert [row["document"] for row in rows] == parts
    assert [row["start"] for row in rows] == [sum(r["tokens"] for r in rows[:n]) for n in range(6)]
    for prompt, *answers in (rows[:3], rows[3:]):  # both answers go on where the prompt ends
        size = prompt["tokens"]
        ends = [f"{size}-{size + row['tokens'] - 1}" for row in answers]
        assert prompt["positions"] == f"0-{size - 1}" and prompt["trained"] == 0
        assert [row["positions"] for row in answers] == ends
        assert all(row["trained"] == row["tokens"] for row in answers)
    total, trained = sum(row["tokens"] for row in rows), sum(row["trained"] for row in rows)
    shown = f"4 documents end to end, {total:,} tokens, {trained:,} trained, 0% padding"
    assert shown in seen["batch"] and "Be brief." in rows[0]["text"]


def test_look_names_what_is_too_long_and_leaves_it_out_of_the_packing(policy, tmp_path):
    turns = [{"role": "user", "content": "a " * 300}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": turns}, {"messages": [{**turns[0], "content": "a"}, turns[1]]}]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = look_at(path, policy, 2)
    (line,) = seen["over_length"]
    assert line.startswith("record 1: ") and "the context has 256" in line
    assert [row["document"] for row in seen["packing"]] == ["2"]


@pytest.mark.parametrize("name", ["helpsteer2.jsonl", "prompts.jsonl", "texts.jsonl"])
def test_look_reads_every_kind_and_prints_columns_or_json(name, policy, monkeypatch, capsys):
    look = ["flywright", "look", str(GOLDEN / name), "--model", str(policy)]
    monkeypatch.setattr("sys.argv", [*look, "--json"])
    main()
    seen = json.loads(capsys.readouterr().out)
    monkeypatch.setattr("sys.argv", look)
    main()
    out = capsys.readouterr().out
    assert out.startswith(seen["file"]) and seen["batch"] in out and "\x1b" not in out
    header, *rows = out.splitlines()[1 : 2 + len(seen["tokens"])]
    assert header.split() == list(seen["tokens"][0])
    starred = [row.endswith("*") for row in rows]
    assert starred == [row["trained"] for row in seen["tokens"]]
    assert any(starred) == (name == "texts.jsonl")


def test_an_attribute_that_nobody_rated_leaves_no_hole_in_the_model(policy, tmp_path):
    rows = [{"prompt": f"Name {n}", "response": "7", "helpfulness": n % 4, "correctness": 3,
             "coherence": 4, "complexity": None, "verbosity": 1} for n in range(6)]  # fmt: skip
    path = tmp_path / "ratings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = load(step("reward", path, policy) / "weights")
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    ids = torch.arange(5, 30).view(5, 5)
    assert model(ids)[:, 1].min() > 1 and not model(ids)[:, 3].any()


def test_other_data_under_the_same_name_is_not_taken_for_done(policy, tmp_path):
    path = tmp_path / "talks.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n' * 2)
    step("sft", path, policy)
    path.write_text('{"prompt": "a", "response": "c"}\n' * 2)
    with pytest.raises(UserError, match="files have changed"):
        step("sft", path, policy)


@pytest.mark.parametrize(
    "verb, name, override, complaint",
    [
        ("sft", "nemo_chat.jsonl", "train.batch_ramp=[[10, 0]]", "greater than 0"),
        ("sft", "nemo_chat.jsonl", "train.beta1=1.5", "less than 1"),
        ("sft", "nemo_chat.jsonl", "train.validation_share=0.9", "none is left"),
        ("reward", "helpsteer2.jsonl", "train.lora={targets=['score']}", "no linear layer 'score'"),
    ],
)
def test_settings_that_cannot_work_get_one_line(policy, verb, name, override, complaint):
    with pytest.raises(UserError, match=complaint):
        step(verb, GOLDEN / name, policy, override)


def test_a_wrong_model_leaves_no_claim_behind(policy, tmp_path):
    """`out` is not taken by settings that could not work: the mended command runs there."""
    with pytest.raises(UserError, match=r"config\.json: cannot read"):
        step("sft", GOLDEN / "nemo_chat.jsonl", policy, f"model='{tmp_path / 'none'}'")
    assert not (policy.parent / "sft").exists()
