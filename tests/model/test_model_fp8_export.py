"""FP8 folders: what is stored, how near it is, who opens it, and what is refused."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from flywright.errors import UserError
from flywright.model import Decoder, RewardModel, load, read_spec, save
from flywright.model.export import export
from flywright.model.fp8 import quantised
from flywright.model.weights import open_meta
from flywright.spec import ModelSpec

SPEC = ModelSpec(
    vocab_size=60, hidden_size=16, layers=2, heads=2, kv_heads=1, head_dim=8, ffn_size=32
)
GATED = {"norm": "rmsnorm", "mlp": "swiglu", "rotary_fraction": 1.0}
FAMILIES = {
    "nemotron": SPEC,
    "qwen2": SPEC.model_copy(update={**GATED, "family": "qwen2", "qkv_bias": True}),
    "tied": SPEC.model_copy(update={**GATED, "family": "llama", "tied_embeddings": True}),
}


@pytest.fixture(params=FAMILIES)
def policy(request, tmp_path):
    """A folder whose first layer has a row of zeros and one with a value far above the others."""
    model = Decoder(FAMILIES[request.param], seed=0)
    weight = model.model.layers[0].mlp.up_proj.weight.data
    weight[0] = 0
    weight[1, 3] = 1e4
    save(model, tmp_path / "policy")
    (tmp_path / "policy" / "chat_template.jinja").write_text("{{ messages }}")
    return tmp_path / "policy"


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def reconfigured(folder, **said):
    (folder / "config.json").write_text(json.dumps({**config_of(folder), **said}))


def test_every_weight_is_within_a_step_of_itself(policy, tmp_path):
    export(policy, tmp_path / "fp8", fp8=True)
    ours, theirs = load(policy).state_dict(), load(tmp_path / "fp8").state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert theirs[name].dtype == weight.dtype
        if not name.endswith("_proj.weight"):  # head, embeddings, norms, biases
            assert torch.equal(theirs[name], weight), name
            continue
        apart = (theirs[name] - weight).abs()
        step = weight.abs().amax(1, keepdim=True) / 448 * 2**-10
        assert (apart <= torch.maximum(weight.abs() / 16 * 1.0001, step)).all(), name
        assert apart.any(), name  # it was rounded at all
    weight = theirs["model.layers.0.mlp.up_proj.weight"]
    assert not weight[0].any()
    assert weight[1, 3] == 1e4


def test_what_vllm_looks_for_is_there(policy, tmp_path):
    out = tmp_path / "fp8"
    assert "matrices in FP8, the rest in torch.bfloat16" in export(policy, out, "bf16", fp8=True)
    stored = load_file(out / "model.safetensors")
    matrices = [name for name in stored if name.endswith("_proj.weight")]
    assert len(matrices) == 2 * (7 if read_spec(out).mlp == "swiglu" else 6)
    for name in matrices:
        assert stored[name].dtype == torch.float8_e4m3fn
        scale = stored[name + "_scale"]
        assert (scale.dtype, scale.shape) == (torch.float32, (len(stored[name]), 1))
    rest = stored.keys() - matrices - {name + "_scale" for name in matrices}
    assert {stored[name].dtype for name in rest} == {torch.bfloat16}
    assert {name for name in stored if name.endswith("scale")} == stored.keys() - rest - {*matrices}
    config = config_of(out)
    said = config.pop("quantization_config")
    assert config == {**config_of(policy), "dtype": "bfloat16"}
    assert (said["quant_method"], said["format"]) == ("compressed-tensors", "float-quantized")
    (group,) = said["config_groups"].values()
    assert (group["targets"], said["ignore"]) == (["Linear"], ["lm_head"])
    assert (group["weights"]["strategy"], group["weights"]["dynamic"]) == ("channel", False)
    acts = group["input_activations"]
    assert (acts["strategy"], acts["dynamic"]) == ("token", True)
    assert (out / "chat_template.jinja").exists()


def test_from_fp8_and_back(policy, tmp_path):
    fp8, plain, again = (tmp_path / name for name in ("fp8", "plain", "again"))
    export(policy, fp8, fp8=True)
    save(load(fp8), plain)
    assert "quantization_config" not in config_of(plain)
    for name, tensor in load(fp8).state_dict().items():
        assert torch.equal(load(plain).state_dict()[name], tensor)
    export(fp8, again)
    assert config_of(again) == config_of(policy)
    again, expected = (load_file(each / "model.safetensors") for each in (again, plain))
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())
    export(plain, tmp_path / "fp8 again", fp8=True)  # what FP8 holds, FP8 holds
    first, second = (load_file(tmp_path / n / "model.safetensors") for n in ("fp8", "fp8 again"))
    for name, tensor in first.items():
        assert torch.equal(tensor.float(), second[name].float()) or name.endswith("scale"), name


def test_the_dtype_is_the_rests_or_the_one_asked_for(policy, tmp_path):
    export(policy, tmp_path / "fp8", "bf16", fp8=True, shard_gb=4e-6)
    assert len(list((tmp_path / "fp8").glob("model-*"))) > 1
    for dtype, expected in ((None, torch.bfloat16), (torch.float32, torch.float32)):
        model, tensors = open_meta(tmp_path / "fp8", dtype)
        name = "model.layers.1.self_attn.k_proj.weight"
        assert tensors[name].dtype == expected == model.get_parameter(name).dtype
        assert {p.dtype for p in load(tmp_path / "fp8", dtype).parameters()} == {expected}


def per_tensor(folder):
    """As older conversions are: `fp8`, one scale a tensor, and one of activations."""
    stored = load_file(folder / "model.safetensors")
    for name in [name for name in stored if name.endswith("_proj.weight")]:
        weight = stored[name]
        scale = weight.abs().max() / 448
        stored[name] = (weight / scale).to(torch.float8_e4m3fn)
        stored |= {f"{name}_scale": scale, name.replace("weight", "input_scale"): torch.ones(())}
    save_file(stored, folder / "model.safetensors")
    reconfigured(
        folder,
        quantization_config={"quant_method": "fp8", "activation_scheme": "static",
                             "ignored_layers": ["lm_head"]},
    )  # fmt: skip


def test_one_scale_a_tensor_opens_too(tmp_path):
    model = Decoder(SPEC, seed=0)
    save(model, tmp_path)
    per_tensor(tmp_path)
    found = load(tmp_path).state_dict()
    assert found.keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        apart = (found[name] - weight).abs()
        assert (apart <= torch.maximum(weight.abs() / 16, weight.abs().max() / 448 / 1024)).all()


FLOAT8 = {"type": "float", "num_bits": 8, "strategy": "channel"}


def groups(**weights):
    said = {"config_groups": {"group_0": {"weights": {**FLOAT8, **weights}}}}
    return {"quant_method": "compressed-tensors", **said}


@pytest.mark.parametrize(
    "said",
    [
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {"quant_method": "compressed-tensors"},
        groups(type="int"), groups(num_bits=4), groups(strategy="group"),
        {}, {"quant_method": "bitsandbytes", "load_in_4bit": True}, "awq", 7,
    ],
)  # fmt: skip
def test_other_quantisations_are_refused_in_one_line(tmp_path, said):
    save(Decoder(SPEC, seed=0), tmp_path)
    reconfigured(tmp_path, quantization_config=said)
    with pytest.raises(UserError, match="quantised in a form that is not read here") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    reconfigured(tmp_path, quantization_config=None)
    load(tmp_path)


def test_fp8_without_its_scale_is_refused(tmp_path):
    save(Decoder(SPEC, seed=0), tmp_path / "policy")
    export(tmp_path / "policy", tmp_path / "fp8", fp8=True)
    path = tmp_path / "fp8" / "model.safetensors"
    whole, name = load_file(path), "model.layers.0.mlp.up_proj.weight_scale"
    for scale in (None, whole[name][:5]):
        stored = {**whole, name: scale} if scale is not None else whole.copy()
        if scale is None:
            del stored[name]
        save_file(stored, path)
        with pytest.raises(UserError, match=r"up_proj\.weight' has no weight_scale"):
            load(tmp_path / "fp8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_fp8_cannot_hold_is_refused(value):
    with pytest.raises(UserError, match="NaN or Inf"):
        quantised(torch.tensor([[1.0, value], [1.0, 2.0]]))


def test_tiny_and_huge_rows_keep_their_step():
    weight = torch.randn(64, 256) * torch.logspace(-38, 37, 64)[:, None]
    fp8, scale = quantised(weight)
    apart = (fp8.double() * scale - weight).abs()
    normal = scale[:, 0] > torch.finfo(torch.float32).tiny
    assert normal.sum() > 60
    step = torch.maximum(weight.abs() / 16 * 1.0001, scale * 2**-10)
    assert (apart <= step)[normal].all()
    assert fp8.float().abs().max() == 448  # the format's whole range is used


def test_a_reward_model_stays_exact(tmp_path):
    save(RewardModel.from_decoder(Decoder(SPEC, seed=0), seed=1), tmp_path / "reward")
    with pytest.raises(UserError, match="--fp8: a reward model is exported in fp32, to be exact"):
        export(tmp_path / "reward", tmp_path / "out", fp8=True)
    assert not (tmp_path / "out").exists()


def test_the_command_line_exports_fp8(tmp_path):
    save(Decoder(SPEC, seed=0), tmp_path / "policy")
    command = [sys.executable, "-m", "flywright.cli", "export", tmp_path / "policy"]
    done = subprocess.run(
        [*command, tmp_path / "out", "--fp8"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{tmp_path / 'out'}: ")
    assert "quantization_config" in config_of(tmp_path / "out")


def test_transformers_opens_it(policy, tmp_path):
    pytest.importorskip("compressed_tensors")
    transformers = pytest.importorskip("transformers")
    export(policy, tmp_path / "fp8", fp8=True)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "fp8")
    ids = torch.arange(20)[None]
    theirs(ids)  # it decompresses as it is first called
    ours = load(tmp_path / "fp8").state_dict()
    for name, weight in theirs.state_dict().items():
        if name in ours:
            torch.testing.assert_close(weight, ours[name], rtol=1e-6, atol=0)
