"""The settings of each method: its loss, its head and its schedules."""

from typing import Annotated

from pydantic import Field

from sslight.config.schema.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
)

# fmt: off
HeadLayers = Annotated[int, Field(ge=1, description="""Linear layers of the projection head.
    Unit: layers. Try: 2, as published.""")]

HeadHiddenDim = Annotated[int, Field(ge=1, description="""Width of the head's hidden layers.
    Unit: channels. Try: 2048 or 4096, as published.""")]

EmbeddingDim = Annotated[int, Field(ge=1, description="""Length of the normalized embedding.
    Unit: channels. Try: 128.""")]

HeadBatchNorm = Annotated[bool, Field(description="""Batch normalization in the head (DINO: yes for CNNs, no for ViTs).
    Unit: true or false. Try: the recipe's.""")]
# fmt: on


class DINOSettings(Section):
    """DINO (Caron et al., ICCV 2021): self-distillation from a moving average of the network itself."""

    student_temp: PositiveFloat = 0.1
    """Temperature of the student's softmax. Unit: logit. Try: 0.1, as published."""

    teacher_temp: PositiveFloat = 0.07
    """Temperature of the teacher's softmax after its warm-up.
    Unit: logit. Try: lower (0.04–0.06) if the health line reports a flat teacher."""

    warmup_teacher_temp: PositiveFloat = 0.04
    """Temperature of the teacher's softmax in the first epoch. Unit: logit. Try: 0.04."""

    warmup_teacher_temp_epochs: NonNegativeInt = 50
    """Epochs over which the teacher's temperature rises; a shorter run stops on the way up.
    Unit: epochs. Try: a quarter of the run."""

    teacher_momentum: Probability = 0.996
    """Share of the teacher kept at each step, at the start; it rises to 1 along a cosine.
    Unit: share. Try: 0.996 at batch 1024, less (0.98–0.99) for runs of few steps."""

    center_momentum: Probability = 0.9
    """Share of the center of the teacher's logits kept at each step. Unit: share. Try: 0.9."""

    freeze_last_layer_epochs: NonNegativeFloat = 1
    """Epochs in which the last layer of the head keeps its initialization.
    Unit: epochs, also fractions. Try: 1; more if the loss does not fall at the start."""

    head_layers: Annotated[int, Field(ge=1)] = 3
    """Linear layers of the projection head before the last layer. Unit: layers. Try: 3."""

    head_hidden_dim: HeadHiddenDim = 2048

    head_bottleneck_dim: PositiveInt = 256
    """Width of the head's normalized output before the last layer. Unit: channels. Try: 256."""

    head_output_dim: Annotated[int, Field(ge=2)] = 4096
    """Outputs K of the last layer. Unit: channels. Try: 4096 for ImageNet, 1024 for sets below 100,000 images."""

    head_batch_norm: HeadBatchNorm = True

    koleo_weight: NonNegativeFloat = 0
    """Weight of a term that spreads over the sphere the features that a process computes at once (KoLeo of the first
    global view, where DINOv2 takes both); not in SSLight.
    Unit: factor on nats. Try: 0; 0.03 in short runs, for kNN; measured with 64 (benchmarks/results/beyond.md)."""

    norm_last_layer: bool = True
    """Keep the norm of the last layer's rows at 1 instead of learning it.
    Unit: true or false. Try: true if training is unstable."""


class SwAVSettings(Section):
    """SwAV (Caron et al., NeurIPS 2020): swapped prediction of assignments to prototypes."""

    num_prototypes: Annotated[int, Field(ge=2)] = 3000
    """Prototypes P to which images are assigned.
    Unit: prototypes. Try: 3000 for ImageNet; about three times the number of kinds of images you expect."""

    temperature: PositiveFloat = 0.1
    """Temperature of the softmax over prototypes. Unit: cosine. Try: 0.1, as published."""

    epsilon: PositiveFloat = 0.05
    """Entropy term of Sinkhorn; smaller values give sharper assignments.
    Unit: cosine. Try: 0.05; 0.03 if assignments stay uniform."""

    sinkhorn_iterations: PositiveInt = 3
    """Rounds of Sinkhorn's normalization. Unit: rounds. Try: 3, as published."""

    queue_size: NonNegativeInt = 3840
    """Embeddings of earlier images, over all processes, that join the batch in Sinkhorn; 0 for none.
    Unit: images. Try: 3840 at batches below the number of prototypes; at least one batch."""

    queue_start_epoch: NonNegativeInt = 15
    """Epoch, counted from 0, at which filling the queue starts; it is used once it is full.
    Unit: epochs. Try: a tenth of the run."""

    freeze_prototypes_epochs: NonNegativeFloat = 1
    """Epochs in which the prototypes keep their initialization. Unit: epochs, also fractions. Try: 1."""

    head_layers: HeadLayers = 2
    head_hidden_dim: HeadHiddenDim = 4096
    head_output_dim: EmbeddingDim = 128
    head_batch_norm: HeadBatchNorm = True


class MoCoSettings(Section):
    """MoCo-v2 (He et al., CVPR 2020; Chen et al., 2020): contrast with a queue of keys."""

    temperature: PositiveFloat = 0.2
    """Temperature of the softmax over the key and the queue. Unit: cosine. Try: 0.2, as published."""

    queue_size: PositiveInt = 65536
    """Keys of earlier images that serve as negatives; a multiple of batch_size.
    Unit: images. Try: 65536 for ImageNet, 4096 for sets below 100,000 images."""

    key_momentum: Probability = 0.999
    """Share of the key network kept at each step. Unit: share. Try: 0.999; 0.99 for runs of few steps."""

    head_layers: HeadLayers = 2
    head_hidden_dim: HeadHiddenDim = 2048
    head_output_dim: EmbeddingDim = 128
    head_batch_norm: HeadBatchNorm = False

    koleo_weight: NonNegativeFloat = 0
    """Weight of a term that spreads over the sphere the features that a process computes at once (KoLeo of the global
    query); not in SSLight.
    Unit: factor on nats. Try: 0; 0.03 in short runs; measured with 64 (benchmarks/results/beyond.md)."""
