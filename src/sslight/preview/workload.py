"""What the views of an image cost, and which pairs of them make up the loss, by method."""

from dataclasses import dataclass

from sslight.config import PretrainSettings

_BACKWARD = 2  # a backward pass computes two products where the forward pass computes one


@dataclass(frozen=True)
class Workload:
    """Pairs of views in the loss of one image, and view pixels through the networks."""

    global_pairs: int  # of two global views (target view, predicting view)
    local_pairs: int  # of a global target and a local predicting view
    global_weight: float  # of all global-global pairs together in the loss
    local_weight: float
    trained_pixels: int  # that the trained network sees, forward and backward
    target_pixels: int  # that the teacher or key network sees, forward only

    @property
    def compute(self) -> int:
        """Pixels of forward passes, a backward pass counted as two of them."""
        return (1 + _BACKWARD) * self.trained_pixels + self.target_pixels


def measure_workload(settings: PretrainSettings) -> Workload:
    """The pairs and the pixels of one image in a training step."""
    views = settings.views
    global_pixels, local_pixels = views.global_size**2, views.num_local * views.local_size**2
    match settings.method:
        case "dino":  # the teacher sees all global views, the student all views
            trained, target = views.num_global * global_pixels + local_pixels, views.num_global * global_pixels
        case "swav":  # one network, whose embeddings of global views also give the assignments
            trained, target = views.num_global * global_pixels + local_pixels, 0
        case "moco":  # the first global view gives the key, all others are queries
            trained, target = (views.num_global - 1) * global_pixels + local_pixels, global_pixels
    targets = 1 if settings.method == "moco" else views.num_global
    global_pairs, local_pairs = targets * (views.num_global - 1), targets * views.num_local
    weight = global_pairs / (global_pairs + local_pairs)
    if local_pairs and settings.global_pair_weight is not None:
        weight = settings.global_pair_weight
    return Workload(global_pairs, local_pairs, weight, 1.0 - weight, trained, target)
