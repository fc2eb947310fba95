import pytest

from sslight.train.machine.utilization import flop_utilization


def test_the_share_is_of_the_gpus_peak_in_the_precision() -> None:
    assert flop_utilization(98.9e12, "NVIDIA H200", "bf16") == pytest.approx(0.1)
    assert flop_utilization(98.9e12, "NVIDIA H200", "32") == pytest.approx(98.9 / 494)
    assert flop_utilization(75.6e12, "NVIDIA H100 PCIe", "16") == pytest.approx(0.1)
    assert flop_utilization(6.5e12, "Tesla T4", "16") == pytest.approx(0.1)


def test_nothing_is_said_of_a_gpu_that_is_not_known() -> None:
    assert flop_utilization(1e12, "GeForce 256", "16") is None
