"""LoRA: nothing changes at the start, only adapters train, and peft reads and writes the same."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flywright.data.batch import Sample
from flywright.data.loader import Shuffled
from flywright.errors import UserError
from flywright.model import Decoder, RewardModel, save
from flywright.train import lora
from flywright.train.loop import fit
from flywright.train.objectives import ranking, sft
from flywright.train.settings import LoraSettings, TrainSettings

IDS = torch.arange(20)[None]
SETTINGS = LoraSettings(rank=4, alpha=8, targets=["q_proj", "v_proj", "up_proj"])
TRAIN = TrainSettings(
    learning_rate=1e-2, batch_size=2, samples=12, precision="fp32", lora=SETTINGS
)  # fmt: skip


def samples(documents: int = 1) -> list[Sample]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(6):
        ids = tuple(generator.integers(0, 400, 9) for _ in range(documents))
        found.append(Sample(ids, tuple(np.ones(9, dtype=bool) for _ in ids)))
    return found


def trained(spec, tmp_path) -> Decoder:
    model = Decoder(spec, seed=0)
    lora.put_on(model, SETTINGS, seed=1)
    fit(model, Shuffled(samples(), 0), sft(), TRAIN, tmp_path)
    return model


def test_at_the_start_nothing_changes_and_then_only_adapters_do(tiny_spec, tmp_path):
    base, model = Decoder(tiny_spec, seed=0), Decoder(tiny_spec, seed=0)
    lora.put_on(model, SETTINGS, seed=1)
    assert torch.equal(model(IDS), base(IDS))
    model = trained(tiny_spec, tmp_path)
    assert (model(IDS) - base(IDS)).abs().max() > 1e-3
    for name, tensor in base.state_dict().items():
        found = model.state_dict()
        kept = found.get(name, found.get(name.replace(".weight", ".base.weight")))
        assert torch.equal(kept, tensor), name


def test_merged_is_the_adapted_model(tiny_spec, tmp_path):
    model = trained(tiny_spec, tmp_path)
    lora.save_adapter(model, SETTINGS, tmp_path / "adapter")
    merged = Decoder(tiny_spec, seed=0)
    lora.merge(merged, tmp_path / "adapter")
    torch.testing.assert_close(merged(IDS), model(IDS), rtol=1e-5, atol=1e-6)


def test_peft_opens_the_adapter_and_ours_merges_peft_s(tiny_spec, tmp_path):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    base, model = Decoder(tiny_spec, seed=0), trained(tiny_spec, tmp_path)
    save(base, tmp_path / "base", [3])
    lora.save_adapter(model, SETTINGS, tmp_path / "adapter")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    opened = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    torch.testing.assert_close(opened(IDS).logits, model(IDS), rtol=1e-4, atol=1e-5)

    with torch.no_grad():
        for name, parameter in opened.named_parameters():
            if "lora_" in name:
                parameter.add_(0.05)
    opened.save_pretrained(tmp_path / "theirs")
    merged = Decoder(tiny_spec, seed=0)
    lora.merge(merged, tmp_path / "theirs")
    torch.testing.assert_close(merged(IDS), opened(IDS).logits, rtol=1e-4, atol=1e-5)


def test_a_reward_head_goes_with_its_adapter(tiny_spec, tmp_path):
    model = RewardModel.from_decoder(Decoder(tiny_spec, seed=0), seed=0)
    lora.put_on(model, SETTINGS, seed=1)
    fit(model, Shuffled(samples(2), 0), ranking(), TRAIN, tmp_path)
    lora.save_adapter(model, SETTINGS, tmp_path / "adapter")
    assert any(
        "score" in name for name in load_file(tmp_path / "adapter/adapter_model.safetensors")
    )
    merged = RewardModel.from_decoder(Decoder(tiny_spec, seed=0), seed=0)
    lora.merge(merged, tmp_path / "adapter")
    torch.testing.assert_close(merged(IDS), model(IDS), rtol=1e-5, atol=1e-6)


def test_bad_adapters_get_one_line(tiny_spec, tmp_path):
    with pytest.raises(UserError, match="no linear layer 'w1'"):
        lora.put_on(Decoder(tiny_spec, seed=0), LoraSettings(targets=["w1"]), seed=0)
    with pytest.raises(UserError, match="no linear layer 'lm_head'"):
        lora.put_on(Decoder(tiny_spec, seed=0), LoraSettings(targets=["lm_head"]), seed=0)
    with pytest.raises(UserError, match="not an adapter folder"):
        lora.merge(Decoder(tiny_spec, seed=0), tmp_path)
    lora.save_adapter(trained(tiny_spec, tmp_path), SETTINGS, tmp_path / "adapter")
    wide = tiny_spec.model_copy(update={"hidden_size": 48})
    with pytest.raises(UserError, match="another size"):
        lora.merge(Decoder(wide, seed=0), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="not an adapter folder"):
        lora.merge(Decoder(tiny_spec, seed=0), tmp_path / "adapter")
