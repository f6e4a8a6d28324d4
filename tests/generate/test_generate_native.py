"""The compiled functions say what torch's operations say."""

import pytest
import torch
import torch.nn.functional as F

from flywright.errors import UserError
from flywright.generate import native
from flywright.generate.cache import PagedCache, Step, gathered
from flywright.generate.packed import PackedLinear
from flywright.generate.runner import Local
from flywright.model import Decoder
from flywright.spec import ModelSpec


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "groups", "channels"), [(6, 2, 16), (4, 4, 64), (16, 1, 32)])
def test_attention_to_pages_is_that_of_gathered_ones(dtype, heads, groups, channels):
    spec = ModelSpec(
        vocab_size=8, hidden_size=32, layers=2, heads=heads, kv_heads=groups, head_dim=channels,
        ffn_size=8, context_length=640,
    )  # fmt: skip
    cache = PagedCache(spec, 3, dtype, torch.device("cpu"))
    assert cache.native is not None
    chance = torch.Generator().manual_seed(3)
    cache.k.normal_(generator=chance)
    cache.v.normal_(generator=chance)
    # a row that decodes, a prompt, a piece of one: in one chunk of keys, and in three
    before, new = (530, 0, 250), (1, 33, 9)
    table = torch.randperm(cache.pages, generator=chance)[: 3 * 40].int().view(3, 40) + 1
    row = torch.tensor([r for r, n in enumerate(new) for _ in range(n)], dtype=torch.int32)
    position = torch.cat([torch.arange(n) + b for b, n in zip(before, new, strict=True)]).int()
    step = Step(row.long(), row, position, table, row.long())
    q, k, v = (
        torch.randn(1, count, len(row), channels, generator=chance).to(dtype)
        for count in (heads, groups, groups)
    )
    twin_k, twin_v = cache.k.clone(), cache.v.clone()
    got = cache.attend(step)(1, q, k, v)
    expected = gathered(twin_k, twin_v, step)(1, q, k, v)
    near = 1e-5 if dtype == torch.float32 else 3e-2
    assert torch.allclose(got.float(), expected.float(), atol=near)
    assert torch.equal(cache.k, twin_k) and torch.equal(cache.v, twin_v)


@pytest.mark.parametrize("rows", [1, 2, 3, 9, 30])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_products_are_torchs(rows, with_bias, dtype):
    chance = torch.Generator().manual_seed(rows)
    weight = torch.randn(50, 64, generator=chance).to(dtype)
    bias = torch.randn(50, generator=chance).to(dtype) if with_bias else None
    x = torch.randn(1, rows, 64, generator=chance).to(dtype)
    expected = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
    near = 1e-4 if dtype == torch.float32 else 0.15
    assert torch.allclose(PackedLinear(weight, bias)(x).float(), expected, atol=near)
    if dtype == torch.float32:
        with pytest.raises(UserError, match="bf16"):
            PackedLinear(weight, bias, int8=True)
        return
    for int8, most in ((True, 0.02), (False, 0.004)):
        linear = PackedLinear(weight, bias, int8)
        wide, alone = linear(x, wide=True), linear(x[:, :1], wide=True)
        assert 0 < float((wide - expected).norm() / expected.norm()) < most
        assert torch.equal(alone[:, 0], wide[:, 0])


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_model_by_one_call_is_its_modules(rows, int8):
    spec = ModelSpec(
        vocab_size=64, hidden_size=64, layers=3, heads=6, kv_heads=2, head_dim=32, ffn_size=96,
        context_length=128, rotary_fraction=0.5,
    )  # fmt: skip
    model = Decoder(spec, seed=2).bfloat16()
    for number, layer in enumerate(model.model.layers):  # norms that are not the identity
        norm = layer.post_attention_layernorm
        torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(number))
        torch.nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(9 + number))
    cache = PagedCache(spec, 2, torch.bfloat16, torch.device("cpu"))
    local = Local(model, cache, int8=int8)
    assert local.whole is not None and local.whole.head is not None
    chance = torch.Generator().manual_seed(rows)
    ids = torch.randint(64, (2, 40), generator=chance).int()
    table = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int32)

    def step(first: int, count: int) -> Step:
        """`count` tokens of each of the rows, from `first` on."""
        row = torch.arange(rows).repeat_interleave(count).int()
        place = torch.arange(first, first + count).repeat(rows).int()
        last = torch.arange(count - 1, count * rows, count).int()
        here = ids[:rows, first : first + count].flatten().contiguous()
        return Step(here, row, place, table[:rows], last)

    with torch.inference_mode():
        got = [local(step(0, 39)), local(step(39, 1))]
        local.whole = None
        expected = [local(step(0, 39)), local(step(39, 1))]
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.allclose(ours, theirs.float(), atol=0.05)
        assert float((ours - theirs.float()).norm() / theirs.float().norm()) < 0.01


def test_own_products_are_not_for_what_the_function_cannot_read():
    half = torch.randn(8, 64).bfloat16()
    assert native.Product.made(half.float(), None) is None
    assert native.Product.made(half[:, :51], None) is None


def test_without_a_compiler_there_is_none(monkeypatch):
    monkeypatch.setenv("FLYWRIGHT_NATIVE", "0")
    native._function.cache_clear()
    assert native.compiled(torch.float32, 4, 2, 16) is None
    assert native.Product.made(torch.randn(8, 64).bfloat16(), None) is None
    monkeypatch.delenv("FLYWRIGHT_NATIVE")
    native._function.cache_clear()


@pytest.mark.parametrize("width", [5, 16, 100, 2051])
def test_peaks_are_torchs_argmax_and_logsumexp(width):
    logits = torch.randn(7, width + 3, generator=torch.Generator().manual_seed(width)) * 9
    logits[1, 3:5] = 60.0  # of equals the first
    logits[2, width - 1] = logits[2, 0] = 70.0
    logits[3, 1:] = -torch.inf
    best, total = native.peaks(logits[:, :width])
    assert best.tolist() == logits[:, :width].argmax(-1).tolist()
    assert torch.allclose(total, logits[:, :width].logsumexp(-1), rtol=1e-6, atol=1e-6)
