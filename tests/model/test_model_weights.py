"""Weights folders: shards and their index, mapped loading, foreign keys refused by name."""

import json
from pathlib import Path

import pytest
import torch

from flywright.errors import UserError
from flywright.model import Decoder, RewardModel, load, save
from flywright.model.export import export
from flywright.model.shards import INDEX, write_parts
from flywright.spec import ModelSpec

SPEC = ModelSpec(
    vocab_size=60, hidden_size=16, layers=2, heads=2, kv_heads=1, head_dim=8, ffn_size=32
)


GATED = SPEC.model_copy(
    update={"family": "qwen3", "norm": "rmsnorm", "mlp": "swiglu", "qk_norm": True,
            "rotary_fraction": 1.0}
)  # fmt: skip


@pytest.mark.parametrize("spec", [SPEC, GATED], ids=["nemotron", "gated"])
def test_a_tensor_starts_from_the_seed_and_its_name(spec):
    started, other, bare = Decoder(spec, seed=0), Decoder(spec, seed=1), Decoder(spec)
    deeper = Decoder(spec.model_copy(update={"layers": 8}), seed=0).state_dict()
    for name, tensor in started.named_parameters():
        if "norm" in name:  # as the layer makes it: the identity
            assert torch.equal(tensor, bare.get_parameter(name))
        else:
            scale = 2 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
            torch.testing.assert_close(tensor, deeper[name] * scale)
            assert not torch.equal(tensor, other.get_parameter(name))
            std = spec.init_std / (2 if scale == 2 else 1)  # 1/sqrt(2 x 2 layers)
            assert 0.8 < tensor.std() / std < 1.2
    assert len({tensor.sum().item() for name, tensor in deeper.items() if "q_proj" in name}) == 8
    body = RewardModel.from_decoder(started, seed=5).state_dict()
    head = RewardModel.from_decoder(other, seed=5).state_dict()
    assert torch.equal(head["score.weight"], body["score.weight"])
    assert torch.equal(body["model.embed_tokens.weight"], started.model.embed_tokens.weight)


@pytest.fixture
def sharded(tmp_path):
    save(Decoder(SPEC, seed=0), tmp_path, shard_bytes=4000)
    return tmp_path


def test_shards_are_the_whole(sharded, tmp_path):
    files = sorted(path.name for path in sharded.glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    expected = Decoder(SPEC, seed=0).state_dict()
    for name, tensor in load(sharded).state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_transformers_opens_the_shards(sharded):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(sharded)
    ids = torch.arange(20)[None]
    torch.testing.assert_close(theirs(ids).logits, load(sharded)(ids), rtol=1e-5, atol=1e-6)


def test_other_files_beside_the_index_are_not_read(sharded):
    (sharded / "consolidated.safetensors").write_bytes(b"not read")
    load(sharded)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: next(folder.glob("model-*")).unlink(), "no such file"),
        (lambda folder: next(folder.glob("model-*")).write_bytes(b"torn"), "not a readable"),
        (lambda folder: (folder / INDEX).write_text("{}"), "no weight_map"),
        (lambda folder: redirected(folder, "../x.safetensors"), "not a file name"),
        (lambda folder: redirected(folder, sorted(folder.glob("model-*"))[1].name), "missing"),
    ],
)
def test_a_spoilt_folder_is_named(sharded, spoil, message):
    spoil(sharded)
    with pytest.raises(UserError, match=message):
        load(sharded)


def redirected(folder, file):
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.embed_tokens.weight"] = file
    (folder / INDEX).write_text(json.dumps(index))


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    pytest.skip("needs Linux")


def test_loading_maps_the_files(tmp_path):
    wide = SPEC.model_copy(update={"vocab_size": 40000, "hidden_size": 256})
    save(Decoder(wide, seed=0), tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    before = anonymous_bytes()
    model = load(tmp_path)
    assert anonymous_bytes() - before < size / 10
    assert model.lm_head.weight.isfinite().all()


def test_a_failed_write_leaves_no_model(tmp_path):
    def tensors():
        yield "a", torch.ones(3)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        write_parts(tmp_path, tensors())
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("rope_scaling", "x", "rope_scaling is 'x', expected a table"),
        ("rope_scaling", {"rope_type": "llama3"}, "rope scaling: factor: Field required"),
        ("hidden_size", None, "missing 'hidden_size'"),
        ("num_key_value_heads", 3, "heads 2 is not a multiple of kv_heads 3"),
        ("model_type", "gpt2", "model_type 'gpt2'; known: nemotron, llama"),
        ("hidden_act", "gelu", "hidden_act 'gelu' is not supported"),
        ("attention_bias", True, "attention_bias True is not supported"),
        ("rope_scaling", {"rope_type": "longrope", "factor": 2.0}, "rope scaling 'longrope'"),
        ("intermediate_size", None, "missing 'intermediate_size'"),
    ],
)
def test_what_the_decoder_has_not_is_refused(tmp_path, key, value, message):
    save(Decoder(SPEC, seed=0), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_a_sliding_window_ends_the_context(tmp_path):
    mistral = {"family": "mistral", "norm": "rmsnorm", "mlp": "swiglu", "rotary_fraction": 1.0}
    save(Decoder(ModelSpec(**{**SPEC.model_dump(), **mistral}), seed=0), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sliding_window": 1024}))
    assert load(tmp_path).spec.context_length == 1024


def test_export_keeps_the_files_beside_the_weights(sharded, tmp_path):
    (sharded / "chat_template.jinja").write_text("{{ messages }}")
    out = tmp_path / "out"
    config = json.loads((sharded / "config.json").read_text())
    (sharded / "config.json").write_text(json.dumps({**config, "torch_dtype": "float32"}))
    assert "bfloat16" in export(sharded, out, "bf16", shard_gb=1e-3)
    said = json.loads((out / "config.json").read_text())
    assert said == {**config, "dtype": "bfloat16"}  # one name for one thing
    assert (out / "chat_template.jinja").read_text() == "{{ messages }}"
    assert load(out).lm_head.weight.dtype == torch.bfloat16
    assert not (out / INDEX).exists()


def test_export_of_a_reward_model_needs_no_bias(tmp_path):
    bias = (1.0, -2.0, 0.5, 3.0, 0.25)
    model = RewardModel.from_decoder(Decoder(SPEC, seed=0), seed=1, bias=bias)
    save(model, tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "theirs")
    exported = load(tmp_path / "theirs")
    assert not exported.score.bias.any()
    ids = torch.arange(30)[None]
    torch.testing.assert_close(exported(ids), model(ids), rtol=1e-5, atol=1e-5)


def test_export_overwrites_nothing(sharded):
    with pytest.raises(UserError, match="is there already"):
        export(sharded, sharded)
