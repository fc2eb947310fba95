"""Keys and defaults of the original's pre-training configuration; a YAML file of its holds what differs."""

from typing import Any

# fmt: off
DEFAULTS: dict[str, dict[str, Any]] = {
    "": {
        "SSL_METHOD": "DINO", "OUTPUT_DIR": "./tmp", "SEED": 0, "WORKERS": 8, "LOG_STEP": 10, "LOG_GRAD": True,
        "USE_FP16": False, "NUM_GPUS_PER_NODE": 8, "N_NODES": 1, "NODE_RANK": 0, "WORLD_SIZE": 1, "DISTRIBUTED": True,
        "DIST_BACKEND": "nccl", "DIST_URL": "env://", "STAGE": "TRAIN", "TENSORBOARD_PATH": "/tensorboard",
    },
    "DATA": {
        "PATH_TO_DATA_DIR": "datasets/imagenet_ori/", "MEAN": [0.485, 0.456, 0.406], "STD": [0.229, 0.224, 0.225],
    },
    "TRAIN": {
        "BATCH_SIZE": 128, "FILE_NAME": "train.h5", "SUBSET_FILE_PATH": "", "CHECKPOINT_PERIOD": 20,
        "CHECKPOINT_FILE_PATH": "", "JOINT_LINEAR_PROBE": False, "NUM_CLASSES": 1000, "DATASET": "imagenet1k",
    },
    "VAL": {"FILE_NAME": "val.h5", "BATCH_SIZE": 128, "DATASET": "imagenet1k", "SUBSET_FILE_PATH": ""},
    "MODEL": {"BACKBONE_ARCH": "vit_tiny", "MODEL_MOMENTUM": 0.99, "MODEL_MOMENTUM_END": 1.0},
    "VIT": {"PATCH_SIZE": 16, "DROP_PATH_RATE": 0.1},
    "MULTI_VIEWS_TRANSFORMS": {
        "GLOBAL_CROPS_SCALE": [0.25, 1.0], "LOCAL_CROPS_SCALE": [0.05, 0.25], "GLOBAL_CROP_SIZE": 224,
        "LOCAL_CROP_SIZE": 96, "LOCAL_CROPS_NUMBER": 6, "NMB_CROPS": [2, 6], "CROPS_FOR_ASSIGN": [0, 1],
        "LAMBDAS": [0.142857, 0.857143], "RANDOM_HORIZONTAL_FLIP_PROB": [0.5, 0.5], "COLOR_JITTER_PROB": [0.8, 0.8],
        "COLOR_JITTER_INTENSITY": [0.4, 0.4, 0.2, 0.1], "GREYSCALE_PROB": [0.2, 0.2],
        "GAUSSIAN_BLUR_PROB": [1.0, 0.1, 0.5], "SOLARIZATION_PROB": [0.0, 0.2], "CROP_PROB": [1.0, 1.0],
    },
    "TWO_VIEWS_TRANSFORMS": dict.fromkeys((
        "COLOR_JITTER_INTENSITY", "COLOR_JITTER_PROB", "CROP_PROB", "GAUSSIAN_BLUR_PROB", "GLOBAL_CROPS_SCALE",
        "GLOBAL_CROP_SIZE", "GREYSCALE_PROB", "RANDOM_HORIZONTAL_FLIP_PROB", "SOLARIZATION_PROB",
    )),
    "SOLVER": {
        "OPTIMIZING_METHOD": "LARS", "BASE_LR": 0.3, "MIN_LR": 0.0, "START_WARMUP": 0.0, "WARMUP_EPOCHS": 10,
        "TOTAL_EPOCHS": 300, "SCHEDULER": "cos", "MILESTONES": [60, 80], "MOMENTUM": 0.9, "WEIGHT_DECAY": 1e-06,
        "WEIGHT_DECAY_END": 0.0, "WD_FACTOR_FOR_BIAS": 0.0, "WD_FACTOR_FOR_DW": 0.0, "LARS_EXCLUDE_BIAS": True,
        "LARS_EXCLUDE_DW": False, "CLIP_GRAD": 0.0, "FREEZE_LAST_LAYER": 0,
    },
    "DINO": {
        "STUDENT_TEMP": 0.1, "TEACHER_TEMP": 0.07, "WARMUP_TEACHER_TEMP": 0.04, "WARMUP_TEACHER_TEMP_EPOCHS": 30,
        "CENTER_MOMENTUM": 0.9, "GLOBAL_ONLY": False,
    },
    "DINOHead": {
        "NUM_LAYERS": 3, "HIDDEN_SIZE": 2048, "BOTTLENECK_DIM": 256, "OUTPUT_DIM": 4096, "USE_BN_IN_HEAD": False,
        "NORM_LAST_YEAR": True,
    },
    "SWAV": {
        "NMB_PROTOTYPES": 3000, "TEMPERATURE": 0.1, "EPSILON": 0.05, "SINKHORN_ITERATIONS": 3, "QUEUE_LENGTH": 0,
        "EPOCH_QUEUE_STARTS": 15, "FREEZE_PROTOTYPES_EPOCHS": 1, "NUM_LAYERS": 2, "HIDDEN_SIZE": 4096,
        "OUTPUT_DIM": 128, "USE_BN_IN_HEAD": True,
    },
    "MOCO": {
        "TEMPERATURE": 0.2, "QUEUE_LENGTH": 65536, "MOMENTUM": 0.999, "NUM_LAYERS": 2, "HIDDEN_SIZE": 2048,
        "OUTPUT_DIM": 128, "USE_BN_IN_HEAD": False, "GLOBAL_ONLY": False,
    },
}
# fmt: on
