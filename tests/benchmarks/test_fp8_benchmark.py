"""What the FP8 benchmark measures: nothing where nothing is rounded, more where more is."""

import fp8
import pytest
import torch

from flywright.model import Decoder, load_decoder, save
from flywright.model.export import export


def test_more_rounding_is_further_away(tiny_spec, tmp_path):
    save(Decoder(tiny_spec.model_copy(update={"init_std": 0.3}), seed=0), tmp_path / "policy")
    export(tmp_path / "policy", tmp_path / "fp8", fp8=True)
    policy, rounded = (load_decoder(tmp_path / name) for name in ("policy", "fp8"))
    texts = [(torch.arange(n, n + 60)[None], torch.arange(59) > 20) for n in range(5)]
    itself = fp8.token_measures(policy, policy, texts)
    assert (itself["kl"], itself["same_top_token"], itself["tokens"]) == (0, 1, 5 * 38)
    assert itself["perplexity"] == itself["perplexity_policy"]
    logits = policy(texts[0][0])[0, :-1][texts[0][1]]
    assert fp8.token_measures(policy, policy, texts[:1])["perplexity"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits, texts[0][0][0, 1:][texts[0][1]]).exp().item()
    )
    weights = fp8.token_measures(rounded, policy, texts)
    with fp8.fp8_activations(rounded):
        both = fp8.token_measures(rounded, policy, texts)
    assert 0 < weights["kl"] < both["kl"]
    assert fp8.token_measures(rounded, policy, texts) == weights  # the rounding is taken off again
    tensor = fp8.by_tensor(tmp_path / "policy")
    assert fp8.token_measures(tensor, policy, texts)["kl"] > 0
