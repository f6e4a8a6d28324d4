"""A base of another family, written by transformers: trained here, and open there again."""

import asyncio
import json

import pytest
import torch

from flywright import Engine
from flywright.ask import Sampling
from flywright.model import load
from flywright.recipe.single import train_one
from flywright.records import ATTRIBUTES, Conversation, Dialogue, Lineage, Rating, write_jsonl
from tokenizer_families import write_family

transformers = pytest.importorskip("transformers")

LINEAGE = Lineage(source="test", answer_by="human")
BASES = {  # the tokenizer's family -> the config's class and what is particular to it
    "llama3": ("LlamaConfig", {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {"head_dim": 8, "sliding_window": None}),
    "qwen2": ("Qwen2Config", {}),
    "chatml": ("Qwen3Config", {"head_dim": 8}),
}


@pytest.fixture(params=BASES)
def base(request, tmp_path):
    folder = tmp_path / "base"
    write_family(request.param, folder)
    if request.param == "chatml":  # a padding token of its own, not the end of text
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": "<|im_end|>"}))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    kind, special = BASES[request.param]
    config = getattr(transformers, kind)(
        vocab_size=len(tokenizer) + 5,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **special,
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def settings(tmp_path, base, verb):
    path = tmp_path / f"{verb}.toml"
    files = {"model": base, "data": tmp_path / f"{verb}.jsonl", "out": tmp_path / verb}
    lines = [f'{key} = "{value}"' for key, value in files.items()]
    train = ["[train]", "learning_rate = 3e-3", "batch_size = 4", "epochs = 1"]
    path.write_text("\n".join([*lines, *train]))
    return path


def talks():
    return [Conversation.of(f"The fox {n}", f"jumps {n} times") for n in range(12)]


def test_fine_tuned_here_it_opens_there(base, tmp_path):
    rows = [Dialogue(id=str(n), conversation=c, lineage=LINEAGE) for n, c in enumerate(talks())]
    write_jsonl(tmp_path / "sft.jsonl", rows)
    before = (base / "model.safetensors").read_bytes()
    train_one("sft", settings(tmp_path, base, "sft"), [])
    folder = tmp_path / "sft" / "weights"
    assert (base / "model.safetensors").read_bytes() == before  # mapped, never written to
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(20)[None]
    torch.testing.assert_close(theirs(ids).logits, load(folder)(ids), rtol=1e-5, atol=1e-5)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (base / name).read_bytes()
    asked, short = Conversation.of("The fox"), Sampling(max_tokens=4)
    assert len(asyncio.run(Engine(folder).complete(asked, short)).token_ids) <= 4


def test_a_reward_model_of_it_scores_the_same_there(base, tmp_path):
    marks = dict.fromkeys(ATTRIBUTES, 3.0)
    rows = [
        Rating(id=str(n), conversation=c, lineage=LINEAGE, **marks) for n, c in enumerate(talks())
    ]
    write_jsonl(tmp_path / "reward.jsonl", rows)
    train_one("reward", settings(tmp_path, base, "reward"), [])
    folder = tmp_path / "reward" / "weights"
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    ids = torch.arange(20)[None]
    torch.testing.assert_close(theirs(ids).logits, load(folder)(ids), rtol=1e-5, atol=1e-5)
    padding = json.loads((folder / "config.json").read_text())["pad_token_id"]
    own = transformers.AutoTokenizer.from_pretrained(base)
    assert padding == (own.eos_token_id if own.pad_token_id is None else own.pad_token_id)
