"""Import of .nemo: each published layout built from scratch, read back bit by bit; and what is bad.

The packing of queries, keys and values is done here by a plain loop of its own.
"""

import io
import json
import os
import pickle
import sys
import tarfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import sentencepiece
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import yaml
from safetensors import safe_open
from torch import Tensor
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor

from flywright import cli
from flywright import load as load_with_tokenizer
from flywright.errors import UserError
from flywright.model import Decoder, RewardModel, load
from flywright.model.nemo import open_nemo
from flywright.model.reward import NINE_LABELS, NINE_WEIGHTS
from flywright.recipe.importing import import_nemo
from flywright.spec import ModelSpec
from flywright.tokenizer import Tokenizer

Model = Decoder | RewardModel
Tensors = dict[str, Tensor]


def small(kind: str, dtype: torch.dtype = torch.bfloat16, kv_heads: int = 2) -> Model:
    spec = ModelSpec(
        vocab_size=404, hidden_size=24, layers=3, heads=4, kv_heads=kv_heads, head_dim=6,
        rotary_fraction=1 / 3, ffn_size=40, context_length=64, init_std=0.3, rotary_base=500.0,
    )  # fmt: skip
    model: Model = Decoder(spec)
    if kind == "nine":
        model = RewardModel(spec, NINE_LABELS, NINE_WEIGHTS)
    elif kind == "five":
        model = RewardModel(spec)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():  # norms too: all are told apart
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    model.to(dtype)
    if isinstance(model, RewardModel):
        model.score.float()
    return model


def config_for(model: Model) -> dict:
    spec = model.spec
    return {
        "mcore_gpt": True,
        "encoder_seq_length": spec.context_length,
        "max_position_embeddings": "${.encoder_seq_length}",
        "num_layers": spec.layers,
        "hidden_size": spec.hidden_size,
        "ffn_hidden_size": "${multiply:4, ${.hidden_size}}",
        "num_attention_heads": spec.heads,
        "num_query_groups": spec.kv_heads,
        "kv_channels": None,
        "init_method_std": spec.init_std,
        "normalization": "layernorm1p",
        "layernorm_epsilon": 1e-5,
        "bias": False,
        "activation": "squared-relu",
        "position_embedding_type": "rope",
        "rotary_percentage": spec.rotary_fraction,
        "rotary_base": spec.rotary_base,
        "share_embeddings_and_output_weights": False,
        "tokenizer": {"library": "sentencepiece", "model": "nemo:0a1b_nemotron_2_256k.model"},
    }


def layer_in_nemo(ours: Tensors, spec: ModelSpec, layer: int, own_norms: bool) -> Tensors:
    """One layer by Megatron's names; the norms fused into the matrices or modules of their own."""
    own = f"model.layers.{layer}."
    q, k, v = (ours[f"{own}self_attn.{x}_proj.weight"] for x in "qkv")
    size, queries = spec.head_dim, spec.heads // spec.kv_heads
    rows = []
    for group in range(spec.kv_heads):
        for query in range(group * queries, (group + 1) * queries):
            rows.append(q[query * size : (query + 1) * size])
        rows.append(k[group * size : (group + 1) * size])
        rows.append(v[group * size : (group + 1) * size])
    first, second = "self_attention.linear_qkv.layer_norm_", "mlp.linear_fc1.layer_norm_"
    if own_norms:
        first, second = "input_layernorm.", "pre_mlp_layernorm."
    return {
        "self_attention.linear_qkv.weight": torch.cat(rows),
        "self_attention.linear_proj.weight": ours[f"{own}self_attn.o_proj.weight"],
        "mlp.linear_fc1.weight": ours[f"{own}mlp.up_proj.weight"],
        "mlp.linear_fc2.weight": ours[f"{own}mlp.down_proj.weight"],
        **{f"{first}{x}": ours[f"{own}input_layernorm.{x}"] for x in ("weight", "bias")},
        **{f"{second}{x}": ours[f"{own}post_attention_layernorm.{x}"] for x in ("weight", "bias")},
    }


def in_nemo(model: Model, stacked: bool, own_norms: bool = False) -> Tensors:
    ours = model.state_dict()
    tensors = {
        "model.embedding.word_embeddings.weight": ours["model.embed_tokens.weight"],
        "model.decoder.final_layernorm.weight": ours["model.norm.weight"],
        "model.decoder.final_layernorm.bias": ours["model.norm.bias"],
        # a reward model that was a language model may keep its output layer
        "model.output_layer.weight": ours.get("lm_head.weight", torch.ones(404, 24)),
    }
    if "score.weight" in ours:
        tensors["model.rm_head.weight"] = ours["score.weight"]
        tensors["model.rm_head.bias"] = ours["score.bias"]
    layers = [
        layer_in_nemo(ours, model.spec, n, own_norms=own_norms) for n in range(model.spec.layers)
    ]
    for name in layers[0]:
        if stacked:
            together = torch.stack([layer[name] for layer in layers])
            tensors[f"model.decoder.layers.{name}"] = together
        else:
            each = {f"model.decoder.layers.{n}.{name}": x[name] for n, x in enumerate(layers)}
            tensors.update(each)
    return tensors


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def write_zarr(folder: Path, model: Model) -> None:
    """Chunks of one layer and a little over half its rows: those at the edges are padded."""
    weights = folder / "model_weights"
    for name, tensor in in_nemo(model, stacked=True).items():
        stacked = name.startswith("model.decoder.layers.")
        sizes = list(tensor.shape)
        if stacked:
            sizes[0] = 1
        rows = -2 if tensor.dim() > 1 + stacked else -1
        sizes[rows] = sizes[rows] // 2 + 1
        (weights / name).mkdir(parents=True)
        dtype = {torch.bfloat16: "bfloat16", torch.float32: "<f4"}[tensor.dtype]
        header = {
            "chunks": sizes, "compressor": None,
            "dtype": dtype, "fill_value": None, "filters": None, "order": "C",
            "shape": list(tensor.shape), "zarr_format": 2,
        }  # fmt: skip
        (weights / name / ".zarray").write_text(json.dumps(header))
        counts = [-(-whole // size) for whole, size in zip(tensor.shape, sizes, strict=True)]
        for place in torch.cartesian_prod(*map(torch.arange, counts)).reshape(-1, len(sizes)):
            low = (place * torch.tensor(sizes)).tolist()
            part = tensor[tuple(slice(a, a + s) for a, s in zip(low, sizes, strict=True))]
            chunk = torch.full(sizes, 9.0, dtype=tensor.dtype)
            chunk[tuple(slice(0, s) for s in part.shape)] = part
            (weights / name / ".".join(map(str, place.tolist()))).write_bytes(raw(chunk))
    extra = weights / "model.decoder.layers.mlp.linear_fc1._extra_state"
    extra.mkdir()
    (extra / "shard_0_3.pt").write_bytes(b"not read")
    (weights / "common.pt").write_bytes(b"not read")
    (weights / "metadata.json").write_text('{"sharded_backend": "zarr"}')


@pytest.fixture(scope="module", autouse=True)
def one_process():
    """A process group of one, for the sharded tensors that a torch_dist checkpoint is made of."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def write_torch_dist(folder: Path, model: Model, stacked: bool = True) -> None:
    """One shard a layer, as Megatron saves; what is not a stack of layers in two shards."""
    state: dict = {"model.decoder.layers._extra_state/shard_0_3": io.BytesIO(b"x"), "n": 3}
    for name, tensor in in_nemo(model, stacked, own_norms=not stacked).items():
        is_stack = stacked and name.startswith("model.decoder.layers.")
        count = tensor.shape[0] if is_stack else 2
        parts, offsets, shards = tensor.tensor_split(count), 0, []
        for part in parts:
            place = [offsets] + [0] * (tensor.dim() - 1)
            shards.append(Shard.from_tensor_and_offsets(part.contiguous(), place, 0))
            offsets += part.shape[0]
        state[name] = ShardedTensor._init_from_local_shards(shards, list(tensor.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder / "model_weights")


WRITERS = {
    "zarr": write_zarr,
    "torch_dist": write_torch_dist,
    "torch_dist, layers one by one": partial(write_torch_dist, stacked=False),
}
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def pieces(tokenizer, tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return (folder / "tokenizer.model").read_bytes()


@pytest.fixture
def build(tmp_path, pieces) -> Build:
    def made(model: Model, layout: str, packed: str = "", **changes) -> Path:
        folder = tmp_path / "unpacked"
        folder.mkdir()
        config = {**config_for(model), **changes}
        kept = {key: value for key, value in config.items() if value != "gone"}
        (folder / "model_config.yaml").write_text(yaml.safe_dump(kept))
        (folder / "0a1b_nemotron_2_256k.model").write_bytes(pieces)
        WRITERS[layout](folder, model)
        return pack(folder, packed) if packed else folder

    return made


def pack(folder: Path, mode: str) -> Path:
    path = folder.with_name("x.nemo")
    with tarfile.open(path, mode) as tar:
        tar.add(folder, arcname="./")
    return path


def assert_same(folder: Path, model: Model) -> None:
    found = load(folder)
    assert type(found) is type(model)
    assert found.spec == model.spec
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    ids = torch.randint(0, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found(ids), model(ids))


@pytest.mark.parametrize("packed", ["", "w:"])
@pytest.mark.parametrize("layout", WRITERS)
def test_a_language_model_comes_back_bit_by_bit(build, tmp_path, layout, packed):
    model = small("language")
    import_nemo(build(model, layout, packed), tmp_path / "out")
    assert_same(tmp_path / "out", model)
    left = {"unpacked", "out", "out.log"} | ({"x.nemo"} if packed else set())
    assert {path.name for path in tmp_path.iterdir()} == left


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("kind", ["five", "nine"])
def test_a_reward_model_keeps_its_head(build, tmp_path, layout, kind):
    model = small(kind)
    line = import_nemo(build(model, layout, "w:"), tmp_path / "out")
    assert "reward model" in line
    assert_same(tmp_path / "out", model)
    found = load(tmp_path / "out")
    assert isinstance(found, RewardModel) and isinstance(model, RewardModel)
    assert (found.labels, found.label_weights) == (model.labels, model.label_weights)


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_one_group_and_as_many_groups_as_heads(build, tmp_path, kv_heads):
    model = small("language", torch.float32, kv_heads)
    groups = None if kv_heads == 4 else kv_heads
    import_nemo(build(model, "zarr", num_query_groups=groups), tmp_path / "out")
    assert_same(tmp_path / "out", model)


def test_the_folder_is_whole_with_tokenizer_and_ends(build, tmp_path, tokenizer):
    import_nemo(build(small("language"), "zarr"), tmp_path / "out")
    _, found = load_with_tokenizer(str(tmp_path / "out"))
    assert found.hash == tokenizer.hash
    ends = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [tokenizer.extra_ids[1], tokenizer.eos_id]


def test_it_streams_into_shards(build, tmp_path):
    model, source = small("language"), build(small("language"), "zarr", "w:")
    told: list[tuple[int, int]] = []
    with open_nemo(source) as nemo:
        nemo.write_weights(
            tmp_path / "out", shard_bytes=6000, tick=lambda d, n, _: told.append((d, n))
        )
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 4
    for shard in shards:
        with safe_open(shard, framework="pt") as stream:
            assert len(stream.keys()) == 1 or shard.stat().st_size < 8000
    assert told[-1][0] == told[-1][1] == len(told) - 1
    assert_same(tmp_path / "out", model)


class Trap:
    """What a hostile pickle does: its loading makes a folder."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def spring_metadata(folder: Path, trap: Path) -> None:
    (folder / "model_weights" / ".metadata").write_bytes(pickle.dumps(Trap(trap)))


def spring_shard(folder: Path, trap: Path) -> None:
    """The same length and place, another content."""
    for path in (folder / "model_weights").glob("*.distcp"):
        stream = io.BytesIO()
        torch.save(Trap(trap), stream)
        evil, metadata = stream.getvalue(), folder / "model_weights" / ".metadata"
        path.write_bytes(evil)
        records = pickle.loads(metadata.read_bytes())
        for place in records.storage_data.values():
            place.offset, place.length = 0, len(evil)
        metadata.write_bytes(pickle.dumps(records))


@pytest.mark.parametrize(
    ("layout", "spring", "names"),
    [
        ("torch_dist", spring_metadata, "mkdir, which is not admitted"),
        ("torch_dist", spring_shard, "not a plain tensor"),
    ],
)
def test_a_hostile_pickle_is_not_run(build, tmp_path, layout, spring, names):
    source, trap = build(small("language"), layout), tmp_path / "sprung"
    spring(source, trap)
    with pytest.raises(UserError, match=names) as raised:
        import_nemo(source, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not trap.exists() and not (tmp_path / "out").exists()


def test_the_traps_would_spring(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil"])
def test_a_member_that_leaves_the_archive(build, tmp_path, name):
    source = build(small("language"), "zarr", "w:")
    with tarfile.open(source, "a:") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(UserError, match="points out of the archive"):
        import_nemo(source, tmp_path / "out")


def test_a_shard_that_names_a_file_elsewhere(build, tmp_path):
    source = build(small("language"), "torch_dist")
    metadata = source / "model_weights" / ".metadata"
    records = pickle.loads(metadata.read_bytes())
    for place in records.storage_data.values():
        place.relative_path = "../../secret"
    metadata.write_bytes(pickle.dumps(records))
    with pytest.raises(UserError, match="not a file beside it"):
        import_nemo(source, tmp_path / "out")


def test_a_shard_that_no_one_wrote_down(build, tmp_path):
    source = build(small("language"), "torch_dist")
    metadata = source / "model_weights" / ".metadata"
    records = pickle.loads(metadata.read_bytes())
    records.state_dict_metadata["model.output_layer.weight"].chunks.pop()
    metadata.write_bytes(pickle.dumps(records))
    with pytest.raises(
        UserError, match=r"output_layer.weight: its pieces do not make up \[404, 24"
    ):
        import_nemo(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"activation": "fast-swiglu"}, "activation is 'fast-swiglu'"),
        ({"normalization": "rmsnorm"}, "normalization is 'rmsnorm'"),
        ({"bias": True}, "bias is True"),
        ({"bias": "gone"}, "bias is missing"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type is 'alibi'"),
        ({"share_embeddings_and_output_weights": True}, "share_embeddings"),
        ({"mcore_gpt": False}, "mcore_gpt is False"),
        ({"num_moe_experts": 8}, "num_moe_experts is 8"),
        ({"num_layers": "many"}, "num_layers is 'many'"),
        ({"num_layers": 4}, "holds 3 layers, not 4"),
        ({"hidden_size": 48, "kv_channels": 6}, "the config asks for"),
        ({"num_query_groups": 3}, "kv_heads"),
    ],
)
def test_a_config_of_another_model(build, tmp_path, change, line):
    with pytest.raises(UserError, match=line) as raised:
        import_nemo(build(small("language"), "zarr", **change), tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_more_layers_than_the_config_says(build, tmp_path):
    with pytest.raises(UserError, match="more layers than the config"):
        import_nemo(
            build(small("language"), "torch_dist, layers one by one", num_layers=2),
            tmp_path / "out",
        )


def damage_nothing_at_all(source: Path) -> None:
    for path in source.iterdir():
        if path.name == "model_weights":
            path.rename(source / "elsewhere")


def damage_tensor(source: Path) -> None:
    name = "model.decoder.layers.mlp.linear_fc2.weight"
    (source / "model_weights" / name).rename(source / name)


def damage_chunk(source: Path) -> None:
    (source / "model_weights" / "model.decoder.final_layernorm.bias" / "1").unlink()


def damage_length(source: Path) -> None:
    path = source / "model_weights" / "model.decoder.final_layernorm.bias" / "1"
    path.write_bytes(path.read_bytes()[:-2])


def damage_compressor(source: Path) -> None:
    path = source / "model_weights" / "model.decoder.final_layernorm.bias" / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), "compressor": {"id": "pickle"}}))


def damage_header(source: Path) -> None:
    (source / "model_weights" / "model.decoder.final_layernorm.bias" / ".zarray").write_text("{}")


def damage_with_another(source: Path) -> None:
    weights = source / "model_weights"
    (weights / "model.decoder.layers.mlp.linear_fc2.weight").rename(weights / "model.router.weight")


def damage_yaml(source: Path) -> None:
    (source / "model_config.yaml").write_text("a: [1\nb: !!python/object/apply:os.mkdir [evil]")


def damage_yaml_type(source: Path) -> None:
    (source / "model_config.yaml").write_text("just words")


def damage_yaml_gone(source: Path) -> None:
    (source / "model_config.yaml").unlink()


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (damage_nothing_at_all, "holds no model_weights/ as zarr or torch_dist"),
        (damage_tensor, "down_proj.weight' is missing"),
        (damage_chunk, "final_layernorm.bias/1 is missing"),
        (damage_length, "24 bytes, expected 26"),
        (damage_compressor, "compressor {'id': 'pickle'} is not read"),
        (damage_header, "not a zarr header"),
        (damage_with_another, "'model.router.weight' does not belong"),
        (damage_yaml, "not valid YAML"),
        (damage_yaml_type, "not a table"),
        (damage_yaml_gone, "model_config.yaml is missing"),
    ],
)
def test_a_damaged_archive_is_one_clear_line(build, tmp_path, damage, line):
    source = build(small("language"), "zarr")
    damage(source)
    with pytest.raises(UserError, match=line) as raised:
        import_nemo(source, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_gzip_cannot_be_sought_in(build, tmp_path):
    source = build(small("language"), "zarr", "w:gz")
    with pytest.raises(UserError, match="unpack it with tar and name the folder"):
        import_nemo(source, tmp_path / "out")


@pytest.mark.parametrize("share", [0.01, 0.6])
def test_a_download_that_broke_off(build, tmp_path, share):
    source = build(small("language"), "torch_dist", "w:")
    data = source.read_bytes()
    source.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError):
        import_nemo(source, tmp_path / "out")


def chatless_pieces() -> bytes:
    """A SentencePiece model without the control tokens of the chat format."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d"] * 9), model_writer=made, vocab_size=12, minloglevel=2,
        model_type="bpe",
    )  # fmt: skip
    return made.getvalue()


@pytest.mark.parametrize(
    ("own", "line"),
    [
        (None, "the config names no SentencePiece file"),
        (lambda: b"nothing of the kind", "not a SentencePiece model"),
        (chatless_pieces, "the tokenizer has no control token '<extra_id_0>'"),
    ],
)
def test_without_a_usable_tokenizer_the_weights_still_come(build, tmp_path, own, line):
    model = small("language")
    library = "huggingface" if own is None else "sentencepiece"
    config = {"library": library, "model": "nemo:other.model"}
    source = build(model, "zarr", tokenizer=config)
    (source / "other.model").write_bytes(own() if own else b"")
    assert f"no tokenizer: {line}" in (told := import_nemo(source, tmp_path / "out")), told
    assert_same(tmp_path / "out", model)
    assert not (tmp_path / "out" / "tokenizer.model").exists()


def test_a_tokenizer_with_more_pieces_than_the_embedding_has_rows(build, tmp_path, monkeypatch):
    source = build(small("language"), "zarr", "w:")
    monkeypatch.setattr(Tokenizer, "load", lambda _: SimpleNamespace(vocab_size=405))
    with pytest.raises(UserError, match="405 pieces, the embedding only 404 rows"):
        import_nemo(source, tmp_path / "out")


def test_the_command(build, tmp_path, monkeypatch, capsys):
    source, out = str(build(small("language"), "zarr")), str(tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["flywright", "import", source, out])
    cli.main()
    assert "language model" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        cli.main()  # out is there now
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "not an empty folder" in error and error.count("\n") == 1
    monkeypatch.setattr(sys, "argv", ["flywright", "import", "nowhere.nemo", out + "2"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "no such .nemo" in capsys.readouterr().err
