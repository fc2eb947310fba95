"""Parameter groups: which tensors decay, and which LARS adapts."""

from typing import Any

from torch import nn

ParameterGroup = dict[str, Any]
"""A group of a PyTorch optimizer; see :func:`parameter_groups` for its keys."""


def parameter_groups(
    *modules: nn.Module,
    lr_factor: float = 1.0,
    name_prefix: str = "",
) -> list[ParameterGroup]:
    """The trainable parameters of modules in the paper's groups, empty groups left out.

    ===============  ==========================  ===================  ============
    name             tensors                     weight_decay_factor  lars_exclude
    ===============  ==========================  ===================  ============
    regularised      all others                  1                    False
    depthwise        4-D, second dimension 1     0                    False
    unregularised    up to 1-D (biases, norms)   0                    True
    ===============  ==========================  ===================  ============

    As in the original, dimensions alone decide: position embeddings, class tokens and a trainable
    ``weight_g`` are regularised.

    Args:
        modules: Their parameters, in order; frozen ones are left out.
        lr_factor: By which :func:`~sslight.optim.set_rates` multiplies the rate of these groups.
        name_prefix: Put before the names of the groups.
    """
    regularised, depthwise, unregularised = [], [], []
    for parameter in (p for module in modules for p in module.parameters() if p.requires_grad):
        if parameter.ndim <= 1:
            unregularised.append(parameter)
        elif parameter.ndim == 4 and parameter.shape[1] == 1:
            depthwise.append(parameter)
        else:
            regularised.append(parameter)
    rows = [
        ("regularised", regularised, 1.0, False),
        ("depthwise", depthwise, 0.0, False),
        ("unregularised", unregularised, 0.0, True),
    ]
    return [
        {
            "name": name_prefix + name,
            "params": params,
            "weight_decay_factor": weight_decay_factor,
            "lars_exclude": lars_exclude,
            "lr_factor": lr_factor,
        }
        for name, params, weight_decay_factor, lars_exclude in rows
        if params
    ]


def classification_groups(backbone: nn.Module, head: nn.Module, *, head_lr_factor: float = 1.0) -> list[ParameterGroup]:
    """The groups for training a classifier: those of the backbone, then those of the head.

    The original tells the head by its name and lets its biases decay under SGD (with the published
    weight decay of 0, no difference); here the head is given, and 1-D tensors never decay.
    """
    return [
        *parameter_groups(backbone),
        *parameter_groups(head, lr_factor=head_lr_factor, name_prefix="head_"),
    ]
