"""Law 9: same logits and gradients as transformers, in both directions, reward head kept.

Shapes are the presets' scaled down (their ratio of heads, a head dimension that is not hidden over
heads, rotary share, norms with bias), and the other families that the decoder covers.
"""

import pytest
import torch

from flywright.model import Decoder, RewardModel, load, save
from flywright.model.reward import NINE_LABELS, NINE_WEIGHTS
from flywright.spec import ModelSpec, RotaryScaling, preset

transformers = pytest.importorskip("transformers")

PRESETS = (
    "nemotron-4-340b",
    "nemotron-4-15b",
    "nemotron-8b",
    "minitron-8b",
    "minitron-4b",
    "nemotron-mini-4b",
)
GATED = {"norm": "rmsnorm", "mlp": "swiglu", "rotary_fraction": 1.0, "norm_eps": 1e-6}
LLAMA3 = RotaryScaling(
    kind="llama3", factor=8.0, original_context=16, low_freq_factor=1.0, high_freq_factor=4.0
)
FAMILIES = {
    "llama 2": {"family": "llama", "kv_heads": 4},
    "llama 3": {"family": "llama", "rotary_scaling": LLAMA3, "rotary_base": 500000.0},
    "llama 3.2": {"family": "llama", "rotary_scaling": LLAMA3, "tied_embeddings": True},
    "linear": {"family": "llama", "rotary_scaling": RotaryScaling(kind="linear", factor=2.0)},
    "mistral": {"family": "mistral", "head_dim": 12},
    "qwen 2": {"family": "qwen2", "qkv_bias": True, "tied_embeddings": True},
    "qwen 2.5, long": {
        "family": "qwen2",
        "qkv_bias": True,
        "rotary_scaling": RotaryScaling(kind="yarn", factor=4.0, original_context=16),
    },
    "qwen 3": {"family": "qwen3", "qk_norm": True, "head_dim": 16},
}
SHAPES = [*PRESETS, *FAMILIES]


def scaled_down(name: str) -> ModelSpec:
    """A preset's proportions at a hundredth of its width."""
    full = preset(name)
    ratio = full.heads // full.kv_heads
    heads, kv_heads = (2 * ratio, 2) if ratio > 1 else (4, 4)
    head_dim = 8 if full.heads * full.head_dim == full.hidden_size else 12
    return full.model_copy(
        update={
            "name": "",
            "vocab_size": 50,
            "hidden_size": 8 * heads,
            "layers": 3,
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
            "ffn_size": 8 * heads * full.ffn_size // full.hidden_size,
            "context_length": 64,
            "init_std": 0.2,
        }
    )


def shaped(name: str) -> ModelSpec:
    if name in PRESETS:
        return scaled_down(name)
    numbers = {"hidden_size": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, **GATED}
    small = {"vocab_size": 50, "layers": 3, "ffn_size": 40, "context_length": 64, "init_std": 0.2}
    return ModelSpec(**{**small, **numbers, **FAMILIES[name]})


def random_model(name: str) -> Decoder:
    model = Decoder(shaped(name), seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter_name, parameter in model.named_parameters():
        if "norm" in parameter_name or parameter_name.endswith("bias"):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.3 * noise
    return model


IDS = torch.arange(80).reshape(2, 40) % 50


@pytest.mark.parametrize("name", SHAPES)
def test_our_folder_in_transformers(name, tmp_path):
    ours = random_model(name)
    save(ours, tmp_path)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    logits, expected = ours(IDS), theirs(IDS).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    logits.square().mean().backward()
    expected.square().mean().backward()
    for key, parameter in theirs.named_parameters():
        torch.testing.assert_close(
            ours.get_parameter(key).grad, parameter.grad, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", SHAPES)
def test_their_folder_here(name, tmp_path):
    save(random_model(name), tmp_path / "first")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    theirs.save_pretrained(tmp_path / "second")
    ours = load(tmp_path / "second")
    assert ours.spec == shaped(name)
    torch.testing.assert_close(ours(IDS), theirs(IDS).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_bf16_is_as_near_to_fp32_as_theirs(name, tmp_path):
    """bf16 rounds at other places than transformers does; neither may be much further from fp32."""
    save(random_model(name), tmp_path)
    exact = load(tmp_path)(IDS)
    ours = load(tmp_path, torch.bfloat16)(IDS).float()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    their_error = (theirs(IDS).logits.float() - exact).square().mean().sqrt()
    our_error = (ours - exact).square().mean().sqrt()
    assert our_error <= 1.25 * their_error
    assert our_error <= 0.03 * exact.square().mean().sqrt()


@pytest.mark.parametrize("name", SHAPES)
def test_counts_agree_with_the_module(name):
    spec = shaped(name)
    assert sum(p.numel() for p in Decoder(spec).parameters()) == spec.parameters


def reward_model(labels=None, weights=None) -> RewardModel:
    bias = (0.5, -1.0, 2.0, 0.25, 3.0)
    model = RewardModel.from_decoder(random_model("nemotron-4-340b"), seed=3, bias=bias)
    if labels is None:
        return model
    nine = RewardModel(model.spec, labels, weights)
    nine.model.load_state_dict(model.model.state_dict())
    return nine


def test_reward_head_is_kept(tmp_path):
    ours = reward_model()
    save(ours, tmp_path)
    again = load(tmp_path)
    assert torch.equal(again(IDS), ours(IDS))
    assert (again.labels, again.label_weights) == (ours.labels, ours.label_weights)


def test_nine_outputs_are_kept(tmp_path):
    ours = reward_model(NINE_LABELS, NINE_WEIGHTS)
    save(ours, tmp_path)
    again = load(tmp_path)
    assert again(IDS).shape == (2, 9)
    assert (again.labels, again.label_weights) == (NINE_LABELS, NINE_WEIGHTS)


def test_folded_reward_model_in_transformers(tmp_path):
    """transformers' head has no bias: folded into the final norm it gives the same attributes."""
    ours = reward_model()
    expected = ours(IDS)
    ours.fold_bias()
    save(ours, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(theirs(IDS).logits, expected, rtol=1e-5, atol=1e-5)
    assert theirs.config.id2label[0] == "helpfulness"


def test_where_no_norm_could_hold_it_there_is_no_bias(tmp_path):
    ours = RewardModel.from_decoder(random_model("llama 3"), seed=3)
    save(ours, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(theirs(IDS).logits, ours(IDS), rtol=1e-5, atol=1e-5)
