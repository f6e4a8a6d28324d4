"""The compiled functions say what torch's operations say."""

import pytest
import torch
import torch.nn.functional as F

from flywright.generate import native
from flywright.generate.cache import PagedCache, Step, gathered
from flywright.generate.packed import Int8Linear, PackedLinear
from flywright.spec import ModelSpec


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "groups", "channels"), [(6, 2, 16), (4, 4, 64), (16, 1, 32)])
def test_attention_to_pages_is_that_of_gathered_ones(dtype, heads, groups, channels):
    spec = ModelSpec(
        vocab_size=8, hidden_size=32, layers=2, heads=heads, kv_heads=groups, head_dim=channels,
        ffn_size=8, context_length=96,
    )  # fmt: skip
    cache = PagedCache(spec, 3, dtype, torch.device("cpu"))
    assert cache._native is not None
    chance = torch.Generator().manual_seed(3)
    cache.k.normal_(generator=chance)
    cache.v.normal_(generator=chance)
    before, new = (40, 0, 17), (1, 33, 5)  # a row that decodes, a prompt, a piece of one
    table = torch.randperm(cache.pages, generator=chance)[: 3 * 5].int().view(3, 5) + 1
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


@pytest.mark.parametrize("rows", [1, 2, 3, 9])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_products_are_torchs(rows, with_bias, dtype):
    chance = torch.Generator().manual_seed(rows)
    weight = torch.randn(48, 64, generator=chance).to(dtype)
    bias = torch.randn(48, generator=chance).to(dtype) if with_bias else None
    x = torch.randn(1, rows, 64, generator=chance).to(dtype)
    expected = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
    near = 1e-4 if dtype == torch.float32 else 0.15
    assert torch.allclose(PackedLinear(weight, bias)(x).float(), expected, atol=near)
    eight = Int8Linear(weight, bias)(x).float()
    assert float((eight - expected).norm() / expected.norm()) < 0.03
    alone = Int8Linear(weight, bias)(x[:, :1])
    assert torch.equal(alone[:, 0], eight.to(dtype)[:, 0])


def test_one_or_two_rows_are_not_for_what_the_function_cannot_read():
    half = torch.randn(8, 64).bfloat16()
    assert native.one_or_two_rows(half.float(), None) is None
    assert native.one_or_two_rows(half[:, :50].contiguous(), None) is None
    assert native.one_or_two_rows(half.t(), None) is None


def test_without_a_compiler_there_is_none(monkeypatch):
    monkeypatch.setenv("FLYWRIGHT_NATIVE", "0")
    native._function.cache_clear()
    assert native.compiled(torch.float32, 4, 2, 16) is None
    assert native.one_or_two_rows(torch.randn(8, 64).bfloat16(), None) is None
    monkeypatch.delenv("FLYWRIGHT_NATIVE")
    native._function.cache_clear()
