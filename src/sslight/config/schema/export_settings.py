"""The typed settings of an export; ``sslight config export`` prints the docstrings below the fields."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from sslight.config.schema import fields

ExportForm = Literal[
    "safetensors",
    "torchvision",
    "timm",
    "onnx",
    "onnx-fp16",
    "onnx-int8",
    "litert",
    "litert-fp16",
    "litert-int8",
    "executorch",
    "executorch-int8",
    "coreml",
]
_ALONE = {"onnx-int8", "litert-int8"}  # formats whose layers can be quantized one by one


def _each_once(value: list[ExportForm]) -> list[ExportForm]:
    if not value:
        raise ValueError("needs at least one form, such as onnx")
    return list(dict.fromkeys(value))


class ExportDataSettings(fields.Section):
    """The images of an export; labels are used where there are class folders, and never needed."""

    check: fields.Paths = []
    """Images on which every exported file is compared with the PyTorch network: as data.train of
    sslight pretrain. With class folders, or with data.labels, the accuracy before and after is measured too.
    Unit: path(s). Try: a few hundred images like those that the device will see."""

    labels: fields.TextPath | None = None
    """Table with the labels of data.check, instead of class folders, as sslight finetune takes it: lines of name and
    label, or with a classifier of overlapping labels lists of them, or a heading and a column of 0 and 1 for each.
    Unit: path. Try: that of sslight finetune."""

    labels_column: fields.LabelsColumn = None

    num_check: Annotated[int, Field(ge=2)] = 512
    """Images of data.check that are used, evenly spread over the set; fewer if it has fewer.
    Unit: images. Try: 512; with many classes at least ten a class."""

    calibration: fields.Paths = []
    """Images from which the ranges of the activations are read, for formats in 8 bits alone. Other images than
    those of data.check, or the comparison is too kind. Unit: path(s). Try: a part of the training images."""

    num_calibration: Annotated[int, Field(ge=8)] = 256
    """Images of data.calibration that are used, evenly spread over the set; fewer if it has fewer. A quarter of them
    gives no ranges, but decides between methods and which layers stay in float (onnx-int8, litert-int8).
    Unit: images. Try: 256; more where agreement on data.check is worse than on them."""

    max_bad_share: fields.MaxBadShare = 0.01

    max_pixels: fields.MaxPixels = fields.MAX_PIXELS
    tar_image: fields.TarImage = None


class Int8Settings(fields.Section):
    """Static quantization to 8 bits."""

    method: Literal["auto", "minmax", "percentile", "entropy"] = "auto"
    """Of onnx-int8: how the range of an activation follows from the calibration images: its extremes, a percentile
    of its values, or the range that loses least information (as in TensorRT). auto tries all three and takes the
    one whose outputs are nearest to the network's on calibration images that gave no ranges.
    Unit: name. Try: auto; export.json has the numbers of each."""

    percentile: Annotated[float, Field(gt=50.0, lt=100.0)] = 99.99
    """Of int8.method=percentile and auto: the share of values that the range covers.
    Unit: percent. Try: 99.9 to 99.999."""

    symmetric: bool = False
    """Of onnx-int8: int8 activations around zero and biases in float, as TensorRT takes them, in place of uint8.
    Unit: true or false. Try: true for TensorRT alone; it costs half of the levels after a ReLU."""

    float_layers: fields.NonNegativeInt | None = None
    """Of onnx-int8 and litert-int8: how many layers stay in float, those that lose most when they alone are in 8 bits.
    null: none if the whole network in 8 bits holds the tolerance on the calibration images, else as few as do, at most
    half of them. export.json names them. Unit: layers. Try: null; 0 for devices that compute in integers alone."""


class ToleranceSettings(fields.Section):
    """How far an exported file may be from the PyTorch network; one beyond is not written."""

    cosine: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Without a classifier: smallest mean cosine similarity of the features to those of the PyTorch network.
    null: 0.9999 for float32 files, 0.999 for float16, 0.98 for 8 bits. Unit: cosine. Try: null."""

    knn: fields.Probability | None = None
    """Without a classifier: smallest share of images that keep their result of a nearest-neighbor search within
    data.check: the predicted class where there are labels, else the nearest image. null: 0.99 for float32 files; for
    float16 0.97 of the classes or 0.95 of the nearest images; for 8 bits 0.8 or 0.5.
    Unit: share of the images. Try: null."""

    same_class: fields.Probability | None = None
    """With a classifier: smallest share of images to which the file gives the class that the PyTorch network gives;
    with overlapping labels, of the labels that either gives (and of those that either withholds), the share on which
    they agree. null: 0.99 for float32 files, 0.97 for float16, 0.8 for 8 bits.
    Unit: share of images or labels. Try: null."""

    accuracy: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    """With a classifier, where class folders of data.check have its names or data.labels gives its labels: largest loss
    of accuracy, of overlapping labels of mean average precision. A file is refused for a loss beyond chance alone (the
    95 % interval, paired over the images, does not reach 0). null: 1.
    Unit: percentage points. Try: null; 0.5 with some thousand images in data.num_check."""


class ExportSettings(fields.Section):
    """Everything that determines an export."""

    model: fields.TextPath
    """The backbone (the first word of the command): a run folder, an export or checkpoint of this program, or a
    .pth.tar of the original implementation.
    Unit: path. Try: runs/first/backbone.safetensors."""

    network: fields.Network = "student"

    format: Annotated[list[ExportForm], BeforeValidator(fields.as_list), AfterValidator(_each_once)] = ["onnx"]
    """What to write, one or a list: safetensors (weights under timm's names), torchvision (weights under
    torchvision's names), timm (a folder for timm and hubs, with a model card), onnx (float32), onnx-fp16 (float16),
    litert (.tflite, float32), litert-fp16 (weights in float16), executorch (.pte for XNNPACK), coreml (.mlpackage,
    float16); onnx-int8, litert-int8 and executorch-int8 are statically quantized.
    Unit: name(s). Try: onnx first; [safetensors, onnx, onnx-int8] for more at once."""

    output: fields.FilePath | None = None
    """Folder for the files and export.json; it must not exist yet. null: ``export`` beside the checkpoint, or
    ``export-2``, ... where that is there.
    Unit: path. Try: null."""

    image_size: Annotated[int, Field(ge=8)] | None = None
    """Side of the images that the files take; null: that of the classifier, else of pre-training.
    Unit: px. Try: null; smaller for speed, checked with sslight evaluate at that size first."""

    resize: Annotated[int, Field(ge=8)] | None = None
    """Shorter side to which an image is resized before the center is cut, in the comparison and stated for the device;
    null: 256 / 224 of image_size. Unit: px. Try: null; image_size to use whole square images."""

    batch: fields.PositiveInt | Literal["dynamic"] = 1
    """How many images an ONNX file takes at a time: a fixed number, or any (dynamic). LiteRT, ExecuTorch and Core ML
    files take one. Unit: images. Try: 1 for devices, whose compilers want fixed shapes; dynamic for servers."""

    opset: Annotated[int, Field(ge=18, le=24)] = 18
    """Operator set of ONNX files. 18 is read by runtimes of 2023 and later, and is the exporter's own, from which
    others are converted. Unit: none. Try: 18; a newer one if your runtime asks for it."""

    input: Literal["nhwc", "nchw", "normalized"] = "nhwc"
    """What ONNX, LiteRT and ExecuTorch files take: RGB bytes [B, S, S, 3] (nhwc) or [B, 3, S, S] (nchw), which
    they normalize themselves, or float32 [B, 3, S, S] that the caller has normalized.
    Unit: name. Try: nhwc; it is what decoders give."""

    classifier: fields.FilePath | None = None
    """Folder of an evaluation (sslight evaluate linear) of this backbone, whose classifier goes into the files with the
    names of the classes; or the folder of sslight finetune or sslight evaluate semi, whose backbone then takes the
    checkpoint's place.
    Unit: path. Try: runs/first/evaluation/linear-...; null if the checkpoint is such a folder itself."""

    probabilities: bool = False
    """Give the probabilities of the classes as a further output of ONNX, LiteRT and ExecuTorch files.
    Unit: true or false. Try: true where nobody computes a softmax on the device."""

    license: str | None = None
    """Of format=timm: the license field of the model card. null: unknown.
    Unit: a name as hubs have them. Try: apache-2.0 or mit, if images and starting weights allow it."""

    runs: Annotated[int, Field(ge=3)] = 50
    """Timed runs for each file and number of threads, in turn with as many of the PyTorch network.
    Unit: runs. Try: 50; 200 on a machine that is not quiet."""

    data: ExportDataSettings = ExportDataSettings()
    int8: Int8Settings = Int8Settings()
    tolerance: ToleranceSettings = ToleranceSettings()
    explained_by: ClassVar[str] = "sslight config export.{key}"

    def without_effect(self) -> list[tuple[str, bool, str]]:
        """See :class:`Section`."""
        forms = set(self.format)
        has_input = any(form.startswith(("onnx", "litert", "executorch")) for form in forms)
        onnx, methods = any(form.startswith("onnx") for form in forms), ("auto", "percentile")
        no_int8, no_onnx_int8 = not any(form.endswith("int8") for form in forms), "onnx-int8" not in forms
        of_onnx_int8 = "it is of onnx-int8, which is not in format"
        return [
            ("data.labels_column", self.data.labels is None, "no table of labels is given"),
            ("data.calibration", no_int8, "nothing is quantized without a format in 8 bits, such as onnx-int8"),
            ("int8.method int8.percentile int8.symmetric", no_onnx_int8, of_onnx_int8),
            ("int8.float_layers", not forms & _ALONE, "it is of onnx-int8 and litert-int8, which are not in format"),
            ("int8.percentile", self.int8.method not in methods, f"int8.method={self.int8.method}"),
            ("input", not has_input, "no file that takes arrays is in format"),
            ("probabilities", not (has_input or "coreml" in forms), "files of weights have no outputs"),
            ("batch opset", not onnx, "it is of ONNX files, and none is in format"),
            ("license", "timm" not in forms, "it is of format=timm"),
        ]
