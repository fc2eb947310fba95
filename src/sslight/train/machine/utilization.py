"""How much of a GPU's arithmetic a run uses."""

import re

_TERAFLOPS = {
    "B200": (2250, 1125),
    "H200": (989, 494),
    "H100 PCIe": (756, 378),
    "H100": (989, 494),
    "A100": (312, 156),
    "L40S": (362, 183),
    "L4": (121, 60),
    "RTX 4090": (165, 83),
    "V100": (125, 15.7),
    "T4": (65, 8.1),
}
"""Dense products a second in half precision and in TF32 (float32 where there is none), from NVIDIA's data sheets."""


def flop_utilization(flops: float, gpu: str, precision: str) -> float | None:
    """``flops`` per second as a share of what a GPU of this name can do; None if it is not listed.

    Counts only the arithmetic of the model, not what checkpointing adds (Chowdhery et al., 2022, PaLM, appendix B).
    """
    known = next((peaks for name, peaks in _TERAFLOPS.items() if re.search(rf"\b{name}\b", gpu)), None)
    if "Laptop" in gpu:  # of the same name and slower
        return None
    return None if known is None else flops / (1e12 * known[precision == "32"])
