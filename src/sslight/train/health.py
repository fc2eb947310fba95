"""Is the network learning? Indicators that need no labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_ROWS = 256  # keeps the eigenvalue problem within milliseconds


@torch.no_grad()
def feature_health(features: Tensor) -> dict[str, Tensor]:
    """Spread and effective rank of a batch of features ``[B, D]``, as scalars on their device.

    * ``feature_spread``: root mean variance of the L2-normalised features over the batch, between 0 (all images
      look alike: collapse) and 1 (directions spread evenly); after Chen & He, CVPR 2021, figure 2.
    * ``effective_rank``: exponential of the entropy of the singular values of the centred
      features, between 1 and min(B - 1, D); Roy & Vetterli, EUSIPCO 2007.
    """
    rows = features[:_MAX_ROWS].float()
    if not rows.isfinite().all():  # the host waits here; eigenvalues of such a matrix would be an error
        nothing = rows.new_full((), torch.nan)
        return {"feature_spread": nothing, "effective_rank": nothing}
    directions = F.normalize(rows, dim=1)
    spread = directions.var(0, unbiased=False).sum().sqrt()
    centred = rows - rows.mean(0)
    singular = torch.linalg.eigvalsh(centred @ centred.T).clamp_min(0).sqrt()
    share = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny)
    rank = torch.special.entr(share).sum().exp()
    return {"feature_spread": spread, "effective_rank": rank}


def health_line(scalars: dict[str, float], batch: int) -> str:
    """The indicators in words, for the end of an epoch."""
    parts = []
    if "teacher_entropy" in scalars:
        parts.append(f"teacher entropy {scalars['teacher_entropy']:.3f} of ln K")
    if "prototypes_used" in scalars:
        parts.append(f"prototypes used {100 * scalars['prototypes_used']:.0f} %")
    if "key_similarity" in scalars:
        parts.append(f"key similarity {scalars['key_similarity']:.2f}")
        parts.append(f"own key nearest {scalars['contrast_top1']:.0f} %")
    parts.append(f"feature spread {scalars['feature_spread']:.2f}")
    parts.append(f"effective rank {scalars['effective_rank']:.0f} of {min(batch, _MAX_ROWS) - 1}")
    return "health: " + " · ".join(parts)
