"""Projection heads against the recorded ones."""

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslight.methods import DINOHead, WeightNormLinear, projection_mlp
from tests.golden import assert_near, part, read_arrays, read_json

CASES = read_json("heads/cases.json")
MODES = [(mode, dtype) for mode in ("eval", "train") for dtype in (torch.float32, torch.float64)]


def our_key(key: str) -> str:
    """The original has a bare ``mlp`` where there is one layer only; ours is a sequence of one."""
    return key.replace("mlp.weight", "mlp.0.weight").replace("mlp.bias", "mlp.0.bias")


def dino_head(case: dict[str, Any]) -> DINOHead:
    return DINOHead(
        case["in_dim"],
        num_layers=case["nlayers"],
        hidden_dim=case["hidden"],
        bottleneck_dim=case["bottleneck"],
        output_dim=case["out_dim"],
        batch_norm=case["use_bn"],
        norm_last_layer=case["norm_last"],
    )


@pytest.mark.parametrize(("mode", "dtype"), MODES, ids=str)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["kind"] == "dino"])
def test_dino_heads_give_the_recorded_outputs_gradients_and_buffers(name: str, mode: str, dtype: torch.dtype) -> None:
    arrays = read_arrays(f"heads/{name}.npz")
    head = dino_head(CASES[name])
    head.load_state_dict({our_key(key): value for key, value in part(arrays, "in.state.").items()})
    head.to(dtype).train(mode == "train")
    x = arrays["in.x"].to(dtype).requires_grad_()
    bottleneck: list[torch.Tensor] = []
    head.last_layer.register_forward_pre_hook(lambda _, inputs: bottleneck.append(inputs[0]))
    logits = head(x)
    (logits * arrays["in.cotangent"].to(dtype)).sum().backward()
    expected = part(arrays, f"out.{mode}.")
    assert_near(logits, expected["y"], 1e-5, "logits")
    assert_near(bottleneck[0], expected["bottleneck"], 1e-5, "bottleneck")
    assert x.grad is not None
    assert_near(x.grad, expected["grad_x"], 1e-5, "gradient by x")
    grads = {our_key(key): value for key, value in part(expected, "grad.").items()}
    assert set(grads) == {key for key, p in head.named_parameters() if p.requires_grad}
    # Where the true gradient is zero (biases before batch norm), rounding is judged by the largest of all.
    scale = max(float(value.abs().max()) for value in grads.values())
    for key, value in grads.items():
        grad = head.get_parameter(key).grad
        assert grad is not None
        assert float((grad - value).abs().max()) <= 1e-5 * scale, key
    for key, value in part(expected, "buffer.").items():
        assert_near(head.get_buffer(key), value, 1e-5, key)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["kind"] != "dino"])
def test_the_mlp_serves_swav_and_moco_too(name: str, mode: str) -> None:
    case, arrays = CASES[name], read_arrays(f"heads/{name}.npz")
    mlp = projection_mlp(
        case["in_dim"],
        num_layers=case["nlayers"],
        hidden_dim=case["hidden"],
        out_dim=case["out_dim"],
        batch_norm=case["use_bn"],
        activation=nn.ReLU,
    )
    prefix = "in.state.projection.mlp." if case["kind"] == "swav" else "in.state.mlp."
    mlp.load_state_dict(part(arrays, prefix))
    out = mlp.train(mode == "train")(arrays["in.x"])
    if case["kind"] == "swav":
        assert_near(F.normalize(out, dim=1), arrays[f"out.{mode}.embedding"], 1e-5)
    else:
        assert_near(out, arrays[f"out.{mode}.y"], 1e-5)


def test_a_fixed_norm_is_one_and_not_trained() -> None:
    layer = WeightNormLinear(6, 9, learn_norm=False)
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == ["weight_v"]
    rows = layer(torch.eye(6)).T
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(9))


def test_a_head_deep_copies_after_a_forward_pass_and_loads_as_plain_weights() -> None:
    head = DINOHead(
        4, num_layers=2, hidden_dim=8, bottleneck_dim=3, output_dim=5, batch_norm=True, norm_last_layer=False
    )
    x = torch.randn(6, 4)
    before = head(x)
    buffer = io.BytesIO()
    torch.save(head.state_dict(), buffer)
    buffer.seek(0)
    other = copy.deepcopy(head)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(x), before)


def test_the_last_layer_stays_in_float32_under_autocast() -> None:
    head = DINOHead(4, hidden_dim=8, bottleneck_dim=3, output_dim=5, batch_norm=False, norm_last_layer=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head.mlp(torch.randn(2, 4)).dtype == torch.bfloat16
        assert head(torch.randn(2, 4)).dtype == torch.float32


def test_heads_start_small_and_without_bias() -> None:
    torch.manual_seed(0)
    mlp = projection_mlp(64, num_layers=3, hidden_dim=128, out_dim=32, batch_norm=False, activation=nn.GELU)
    linears = [layer for layer in mlp if isinstance(layer, nn.Linear)]
    assert len(linears) == 3
    for layer in linears:
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        assert not layer.bias.any()
