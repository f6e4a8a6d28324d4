"""The decoder: counts, packing, folders that refuse what is wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from flywright.errors import UserError
from flywright.model import Decoder, RewardModel, load, save
from flywright.model.attention import blocked_causal, fused_causal, packed
from flywright.spec import preset


def test_spec_counts_what_the_module_holds(tiny_spec):
    model = Decoder(tiny_spec)
    assert sum(p.numel() for p in model.parameters()) == tiny_spec.parameters
    body = sum(
        p.numel() for n, p in model.named_parameters() if "embed" not in n and "head" not in n
    )
    assert body == tiny_spec.non_embedding_parameters


def test_published_counts():
    spec = preset("nemotron-4-340b")
    assert spec.non_embedding_parameters == 331_592_011_776
    assert spec.embedding_parameters == 9_437_184_000
    assert spec.kv_bytes_per_token() == 589_824


@pytest.mark.parametrize("lengths", [[5, 7, 4, 40], [16], [8, 8, 8]])
def test_packed_documents_equal_documents_alone(tiny_spec, lengths):
    model = Decoder(tiny_spec, seed=0)
    ids = torch.randint(0, 400, (1, sum(lengths)), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    together = model.hidden(ids, positions, packed(lengths))
    alone = [model.hidden(part) for part in ids.split(lengths, dim=1)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1))


@pytest.mark.parametrize("tokens", [20, 300])
def test_blocked_attention_equals_the_fused_kernel(tokens):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, tokens, 8, generator=generator) for heads in (4, 2, 2))
    torch.testing.assert_close(blocked_causal(q, k, v), fused_causal(q, k, v))


def test_missing_head_is_an_error(tiny_spec, tmp_path):
    save(RewardModel.from_decoder(Decoder(tiny_spec, seed=0), seed=0), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="reward head"):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["config", "type", "tensors", "shape", "extra"])
def test_a_bad_folder_is_one_clear_line(tiny_spec, tmp_path, damage):
    save(Decoder(tiny_spec, seed=0), tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    tensors = load_file(weights)
    if damage == "config":
        config.write_text("{")
    elif damage == "type":
        config.write_text(json.dumps({"model_type": "gpt2"}))
    elif damage == "tensors":
        weights.write_bytes(b"nonsense")
    elif damage == "shape":
        save_file({**tensors, "lm_head.weight": torch.zeros(3, 3)}, weights)
    else:
        save_file({**tensors, "other.weight": torch.zeros(3)}, weights)
    with pytest.raises(UserError, match=str(tmp_path)) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
