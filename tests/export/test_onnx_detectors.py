"""torchvision's whole detectors as ONNX files by torch.onnx.export(dynamo=True)."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_networks import tiny
from torch import nn

from resnet_cuda.export import export_onnx
from resnet_cuda.export.detectors import exportable, foreign_part
from resnet_cuda.export.detectors.suppression import apart
from resnet_cuda.export.openvino import deform_conv_extension
from resnet_cuda.export.signature import Signature

detection = pytest.importorskip("torchvision.models.detection")
onnx_files = [
    pytest.mark.filterwarnings("ignore"),  # of the exporters
    pytest.mark.usefixtures("registered"),
]
NAMES = ["faster", "mask", "keypoint", "retinanet"]
# of different content, too: the first is traced, the last has no detection
IMAGES = {"traced": (70, 90), "square": (64, 64), "tall": (100, 50), "wide": (33, 201), "large": (160, 200)}


def network(name: str) -> nn.Module:
    """One block in each of two stages, C3 deformable, 3 levels, few proposals; scores are far from each other."""
    torch.manual_seed(0)
    backbone = tiny(stages=2)
    anchors = detection.anchor_utils.AnchorGenerator(((16, 24), (32, 48), (64, 80)), ((0.5, 1.0, 2.0),) * 3)
    sizes = {"min_size": 64, "max_size": 96}
    if name == "retinanet":
        model = detection.RetinaNet(backbone, 5, **sizes, anchor_generator=anchors, detections_per_img=20)
        for parameter in model.head.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.15)
        nn.init.constant_(model.head.classification_head.cls_logits.bias, -1.0)
        return model.eval()
    options = {"rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 30, "box_detections_per_img": 12}
    kinds = {"faster": detection.FasterRCNN, "mask": detection.MaskRCNN, "keypoint": detection.KeypointRCNN}
    model = kinds[name](backbone, 2 if name == "keypoint" else 5, **sizes, **options, rpn_anchor_generator=anchors)
    for part in (model.rpn.head, model.roi_heads.box_predictor):
        for parameter in part.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in IMAGES.values()]


def found_in(model: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return model([image])[0]


def with_none_in_one_image(model: nn.Module) -> nn.Module:
    """Its threshold of scores lies between the best ones of the two images that have the lowest."""
    best = sorted(float(found_in(model, image)["scores"].max()) for image in images())
    owner = getattr(model, "roi_heads", model)
    owner.score_thresh = (best[0] + best[1]) / 2
    return model


def detections(name: str) -> nn.Module:
    return with_none_in_one_image(network(name))


def assert_found(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(got) == list(expected)
    for key, right in expected.items():
        one = torch.as_tensor(got[key])
        assert one.dtype == right.dtype
        largest = float(right.abs().max()) if right.numel() else 0.0
        torch.testing.assert_close(
            one, right, rtol=1e-3, atol=1e-4 * largest, msg=lambda text, key=key: f"{key}: {text}"
        )


def assert_all_found(find, model: nn.Module, sizes=tuple(IMAGES)) -> None:
    numbers = []
    for name, image in zip(IMAGES, images(), strict=True):
        if name in sizes:
            expected = found_in(model, image)
            assert_found(find(image), expected)
            numbers.append(len(expected["scores"]))
    assert len(sizes) == 1 or (min(numbers) == 0 and len(set(numbers)) > 2), numbers


@pytest.mark.parametrize("name", NAMES)
def test_the_exportable_form_finds_the_same(name):
    model = detections(name)
    form = exportable(model)
    with torch.no_grad():
        assert_all_found(form, model)


@pytest.mark.parametrize(("number", "moved"), [(1000, True), (1001, False)])
def test_boxes_have_the_rounding_of_torchvisions_batched_nms(number, moved):
    """It moves classes apart up to 1000 boxes, and goes class by class beyond."""
    boxes, labels, there = torch.rand(2, 600, 4), torch.tensor([[1], [7]]).expand(2, 600), torch.zeros(1200, dtype=bool)
    there[:number] = True
    there = there.view(2, 600)
    boxes[~there] += 5  # not looked at
    got = apart(boxes, labels, there)
    expected = boxes + labels[..., None] * (boxes[there].max() + 1) if moved else boxes
    assert torch.equal(got, expected)


def test_candidates_that_go_class_by_class():
    model = network("retinanet")
    model.score_thresh, model.detections_per_img, model.nms_thresh = 0.01, 2000, 0.9
    expected = found_in(model, images()[-1])
    assert len(expected["scores"]) > 1000
    with torch.no_grad():
        assert_found(exportable(model)(images()[-1]), expected)


def test_transforms_of_a_fixed_size():
    model = network("mask")
    model.transform.fixed_size = (80, 64)
    expected = found_in(model, images()[2])
    with torch.no_grad():
        assert_found(exportable(model)(images()[2]), expected)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Of each detector, made when first asked for: the network and its file. Exporting takes most of a minute."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    folder, made = tmp_path_factory.mktemp("detectors"), {}

    def file(name: str):
        if name not in made:
            model = detections(name)
            # The check compares the traced image and its transposed one. "faster" has a fixed size.
            report = export_onnx(model, folder / f"{name}.onnx", example=images()[:1], dynamic=name != "faster")
            made[name] = model, report
        return made[name]

    return file


class TestFiles:
    pytestmark = onnx_files

    @pytest.mark.parametrize("name", NAMES)
    def test_under_onnx_runtime(self, name, files):
        onnxruntime = pytest.importorskip("onnxruntime")
        model, report = files(name)
        assert report.exporter == "dynamo"
        assert report.output_names == tuple(found_in(model, images()[0]))
        session = onnxruntime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])

        def find(image):
            return dict(zip(report.output_names, session.run(None, {"image": image.numpy()}), strict=True))

        assert_all_found(find, model, ["traced"] if name == "faster" else tuple(IMAGES))

    @pytest.mark.parametrize("name", ["faster", "mask", "retinanet"])  # its reader refuses the keypoints' loop
    def test_under_openvino(self, name, files):
        openvino = pytest.importorskip("openvino")
        model, report = files(name)
        core = openvino.Core()
        core.add_extension(deform_conv_extension())
        compiled = core.compile_model(core.read_model(report.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def find(image):
            return dict(zip(report.output_names, map(torch.as_tensor, compiled(image.numpy()).values()), strict=True))

        assert_all_found(find, model, ["traced"] if name == "faster" else tuple(IMAGES))

    def test_what_a_file_is_made_of(self, files):
        onnx = pytest.importorskip("onnx")
        model = onnx.load(files("mask")[1].path)
        names = [node.op_type for node in model.graph.node]
        assert {node.domain for node in model.graph.node} == {""}
        assert names.count("DeformConv") == 1
        assert names.count("NonMaxSuppression") == 4  # a level each, and the detections
        assert names.count("RoiAlign") == 4  # a level each, for boxes and for masks
        assert not {"Loop", "Scan", "If"} & set(names)
        assert [it.dim_param for it in model.graph.input[0].type.tensor_type.shape.dim] == ["", "height", "width"]


class OtherHeads(detection.roi_heads.RoIHeads):
    def postprocess_detections(self, *arguments):
        return super().postprocess_detections(*arguments)


def subclassed(model: nn.Module) -> str:
    model.roi_heads.__class__ = OtherHeads
    return "roi_heads is a OtherHeads whose postprocess_detections is not that of torchvision's RoIHeads"


def patched(model: nn.Module) -> str:
    model.transform.forward = model.transform.forward
    return "transform is a GeneralizedRCNNTransform whose forward is not that of torchvision's"


def hooked(model: nn.Module) -> str:
    model.rpn.register_forward_hook(lambda *_: None)
    return "rpn has forward hooks"


@pytest.mark.parametrize("change", [subclassed, patched, hooked])
def test_what_torchvision_does_otherwise_is_not_replaced(change, tmp_path):
    model = network("mask")
    assert foreign_part(model) is None
    message = change(model)
    assert foreign_part(model).startswith(message)
    pytest.importorskip("onnx")
    with pytest.raises(
        ValueError, match=f"exporter is 'dynamo'; for this model it must be None or 'torchscript': {message}"
    ):
        export_onnx(model, tmp_path / "x.onnx", example=images()[:1], exporter="dynamo")
    assert not list(tmp_path.iterdir())


def test_what_is_no_detector_of_torchvision():
    assert foreign_part(tiny(stages=2)) == "a BackboneWithFPN is not torchvision's GeneralizedRCNN or RetinaNet"


@pytest.mark.parametrize(("size", "other"), [((70, 90), (90, 70)), ((64, 64), (48, 64))])
def test_two_sizes_are_compared(size, other):
    compared = Signature([torch.rand(3, *size)]).inputs_to_compare(dynamic=True)
    assert [tuple(image.shape[1:]) for (image,) in compared] == [size, other]
    assert len(Signature([torch.rand(3, *size)]).inputs_to_compare(dynamic=False)) == 1
