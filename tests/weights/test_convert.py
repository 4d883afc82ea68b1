"""``convert``: files in other libraries' names, the program, and what it refuses."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from helpers.loading import by_configuration
from helpers.networks import cfg_built, levels_of, narrow_fpn, randomise, torchvision_style
from helpers.processes import run_python

from resnet_cuda import load_weights
from resnet_cuda.weights import files
from resnet_cuda.weights.convert import LAYOUTS, TARGETS, convert, convert_file


def program(*arguments):
    return run_python("-m", "resnet_cuda", "convert", *map(str, arguments))


@pytest.mark.parametrize("to", [it for it in TARGETS if it != "timm"])
@pytest.mark.parametrize("ending", [".pth", ".pkl", ".safetensors"])
def test_files_of_every_format_load_again(to, ending, tmp_path):
    network, model = randomise(narrow_fpn()), narrow_fpn()
    path = tmp_path / f"weights{ending}"
    convert_file(network, path, to)
    report = load_weights(model, path)
    assert report.format == to
    for key, value in network.state_dict().items():
        if to == "caffe2" and value.dim() == 1:  # a folded norm
            continue
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-6, atol=1e-6)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for got, expected in zip(levels_of(model(x)), levels_of(network(x)), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_wrappers_are_those_of_the_libraries(tmp_path):
    network = narrow_fpn()
    contents = {to: convert(network, to).content for to in TARGETS if to != "timm"}
    assert list(contents["maskrcnn-benchmark"]) == ["model", "resnet_cuda"]
    assert list(contents["detectron2"]) == ["model", "__author__", "resnet_cuda"]
    assert list(contents["mmdetection"]) == ["state_dict", "meta", "resnet_cuda"]
    assert list(contents["caffe2"]) == ["blobs", "resnet_cuda"]
    assert "body.conv1.weight" in contents["torchvision"]
    path = tmp_path / "weights.pkl"
    convert_file(network, path, "detectron2")
    content = pickle.loads(path.read_bytes())  # as detectron2 reads it
    assert isinstance(content["model"]["bottom_up.stem.conv1.weight"], np.ndarray)


def test_layouts():
    state = torchvision_style(dcn=False).state_dict()

    def first(to, layout):
        return next(iter(convert(state, to, layout=layout).weights))

    assert first("torchvision", None) == "body.conv1.weight"
    assert first("torchvision", "detector") == "backbone.body.conv1.weight"
    assert first("torchvision", "classifier") == "conv1.weight"
    assert first("maskrcnn-benchmark", "detector") == "backbone.body.stem.conv1.weight"
    assert first("detectron2", None) == "bottom_up.stem.conv1.weight"
    assert first("detectron2", "detector") == "backbone.bottom_up.stem.conv1.weight"
    assert first("mmdetection", None) == "backbone.conv1.weight"
    body = torchvision_style(dcn=False).body.state_dict()
    assert next(iter(convert(body, "detectron2").weights)) == "stem.conv1.weight"
    assert next(iter(convert(body, "timm").weights)) == "conv1.weight"


def test_a_detector_keeps_its_other_parts_in_its_own_format_only():
    state = {f"backbone.{key}": value for key, value in narrow_fpn().state_dict().items()}
    state["rpn.head.cls_logits.weight"] = torch.zeros(3, 8, 1, 1)
    assert "rpn.head.cls_logits.weight" in convert(state, "torchvision").weights
    other = convert(state, "detectron2")
    assert other.left_out == ["rpn.head.cls_logits.weight"]
    assert "left out    1  rpn.head.cls_logits.weight" in str(other)


# Keys of whole detectors and classifiers beside the backbone, as each library names them.
OTHER_PARTS = {
    "torchvision": (
        *("rpn.head.conv.0.0.weight", "rpn.head.cls_logits.bias", "roi_heads.box_head.fc6.weight"),
        *("roi_heads.box_predictor.cls_score.weight", "roi_heads.mask_head.0.0.weight"),
        *("roi_heads.keypoint_predictor.kps_score_lowres.weight", "head.classification_head.conv.0.0.weight"),
    ),
    "maskrcnn-benchmark": (
        *("rpn.head.conv.weight", "rpn.anchor_generator.cell_anchors.0", "roi_heads.box.predictor.cls_score.weight"),
        *("roi_heads.mask.feature_extractor.mask_fcn1.weight", "rpn.head.cls_tower.0.weight"),
    ),
    "detectron2": (
        *("proposal_generator.rpn_head.conv.weight", "roi_heads.box_head.fc1.weight", "pixel_mean"),
        *("roi_heads.mask_head.mask_fcn1.weight", "head.cls_subnet.0.weight"),
    ),
    "mmdetection": (
        *("rpn_head.rpn_conv.weight", "roi_head.bbox_head.shared_fcs.0.weight", "bbox_head.cls_convs.0.conv.weight"),
        "roi_head.mask_head.convs.0.conv.weight",
    ),
    "caffe2": ("conv_rpn_w", "rpn_cls_logits_b", "fc6_w", "cls_score_w", "_[mask]_fcn1_w"),
}


@pytest.mark.parametrize("layout", [None, *LAYOUTS])
@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("origin", OTHER_PARTS)
def test_no_key_of_another_part_remains(origin, to, layout):
    backbone = convert(narrow_fpn(), origin, layout="detector").weights
    others = {key: torch.zeros(2, 2) for key in OTHER_PARTS[origin]}
    if to == "timm" and layout in ("backbone", "detector"):
        with pytest.raises(ValueError, match=f"timm has names of classifiers only; layout is '{layout}'"):
            convert({**backbone, **others}, to, layout=layout)
        return
    conversion = convert({**backbone, **others}, to, layout=layout)
    kept = others.keys() if origin == to and layout in (None, "detector") else set()
    is_classifier = to == "timm" or layout == "classifier"
    part = narrow_fpn().body if is_classifier else narrow_fpn()
    expected = convert(part, to, layout=layout or conversion.layout).weights
    # Norms folded by Caffe2 come back whole.
    keys = {key for key in conversion.weights if not key.endswith("num_batches_tracked")}
    assert keys == expected.keys() | kept
    pyramid = convert(narrow_fpn().fpn, origin, layout="backbone").weights
    assert len(conversion.left_out) == len(others) - len(kept) + (len(pyramid) if is_classifier else 0)
    assert others.keys() - kept <= set(conversion.left_out)
    assert conversion.layout == ("classifier" if is_classifier else layout or conversion.layout)


@pytest.mark.parametrize("last", ["fc", "fc.1"])
@pytest.mark.parametrize("layout", [None, *LAYOUTS])
@pytest.mark.parametrize("to", TARGETS)
def test_a_classifiers_last_layer_stays_in_classifiers(to, layout, last):
    body = narrow_fpn().body.state_dict()
    state = {**body, f"{last}.weight": torch.zeros(3, 64), f"{last}.bias": torch.zeros(3)}
    if to == "timm" and layout in ("backbone", "detector"):
        return
    conversion = convert(state, to, layout=layout)
    names = {"detectron2": "linear.{}", "caffe2": "fc1000_{}"}.get(to, "fc.{}")
    leaves = ("w", "b") if to == "caffe2" else ("weight", "bias")
    if last == "fc.1":
        names, is_known = "fc.1.{}", to in ("torchvision", "timm")
    else:
        is_known = True
    stays = is_known and layout in (None, "classifier")
    expected = {names.format(leaf) for leaf in leaves} if stays else set()
    assert conversion.weights.keys() - convert(body, to, layout=layout).weights.keys() == expected
    assert conversion.left_out == ([] if stays else [f"{last}.weight", f"{last}.bias"])


def test_detectors_of_torchvision_for_timm():
    detection = pytest.importorskip("torchvision.models.detection", reason="builds torchvision's Mask R-CNN")
    resnet50 = pytest.importorskip("torchvision.models", reason="builds torchvision's ResNet").resnet50
    detector = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    conversion = convert(detector.state_dict(), "timm")
    assert "318 tensors, names of a classifier" in str(conversion)
    assert "left out   42  " in str(conversion)
    for part in ("backbone.fpn 16", "roi_heads.mask_head 8", "rpn.head 6"):
        assert part in str(conversion)
    missing, unexpected = resnet50().load_state_dict(conversion.weights, strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])


def test_a_classifier_is_the_body_alone():
    network = narrow_fpn()
    for to, options in (("timm", {}), ("detectron2", {"layout": "classifier"})):
        conversion = convert(network, to, **options)
        assert len(conversion.weights) == len(network.body.state_dict())
        assert len(conversion.left_out) == len(network.fpn.state_dict())
        assert "names of a classifier" in str(conversion)


def test_what_the_weights_are_for_is_noted_and_read():
    """So that no advice is given that would be wrong for a converted file."""
    network = randomise(torchvision_style(dcn=False))
    there = convert(network, "detectron2").content
    assert there["resnet_cuda"] == {"pixels": "torchvision", "stride_in_1x1": False, "assumed": ["pixels"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = load_weights(torchvision_style(dcn=False), there)
    assert any("the weights are probably for RGB, 0 to 1, mean 0.485" in note for note in report.notes)
    with pytest.warns(UserWarning, match="mostly stride in the first 1x1"):
        load_weights(torchvision_style(dcn=False), there["model"])
    assert convert(there, "caffe2", pixels="caffe2").content["resnet_cuda"] == {
        "pixels": "caffe2",
        "stride_in_1x1": False,
    }


def test_what_is_assumed_of_a_file_is_not_noted_as_a_fact():
    """torchvision's files have no place for a note: after a way through one, stride and pixels are guesses."""
    network = randomise(by_configuration(STRIDE_IN_1X1=True))
    there = convert(network, "detectron2", pixels=("caffe2", "caffe2")).content
    assert there["resnet_cuda"] == {"pixels": "caffe2", "stride_in_1x1": True}
    back = convert(convert(there, "torchvision").content, "detectron2")
    guessed = {"pixels": "torchvision", "stride_in_1x1": False, "assumed": ["pixels", "stride_in_1x1"]}
    assert back.content["resnet_cuda"] == guessed
    assert any("probably stride in the 3x3" in note for note in back.notes)
    assert convert(back.content, "maskrcnn-benchmark").content["resnet_cuda"] == guessed  # nor by a second one
    with pytest.warns(UserWarning, match="in the first 1x1, those of the weights probably in the 3x3"):
        load_weights(by_configuration(STRIDE_IN_1X1=True), back.content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = load_weights(by_configuration(), back.content)
    assert any("in the 3x3, those of the weights probably, too" in note for note in report.notes)
    assert any("the weights are probably for RGB" in note for note in report.notes)


def test_the_input_of_a_file_is_told_as_a_fact_only_where_it_is_one():
    def note(source, to, **options):
        (found,) = (it for it in convert(source, to, **options).notes if it.startswith("input: "))
        return found

    network = randomise(by_configuration())
    state = network.state_dict()
    assert "the weights of maskrcnn-benchmark mostly expect BGR" in note(state, "torchvision")
    assert "maskrcnn-benchmark mostly expect BGR" in note(state, "caffe2", pixels="caffe2")
    assert note(state, "caffe2", pixels=("caffe2", "caffe2")).startswith("input: the weights are for BGR")
    guessed = convert(state, "detectron2").content
    assert "the weights are probably for BGR" in note(guessed, "torchvision")
    known = convert(state, "detectron2", pixels=("caffe2", "caffe2")).content
    assert "the weights are for BGR" in note(known, "torchvision")


def test_detectron2s_bodies_without_a_pyramid_have_its_names():
    body = narrow_fpn().body.state_dict()
    weights = convert({f"backbone.body.{key}": value for key, value in body.items()}, "detectron2").weights
    assert next(iter(weights)) == "backbone.stem.conv1.weight"


@pytest.mark.parametrize("leaf", ["weight", "bias", "running_mean"])
def test_norms_that_are_not_whole_are_refused(leaf):
    state = dict(narrow_fpn().state_dict())
    del state[f"body.bn1.{leaf}"]
    for to in ("caffe2", "maskrcnn-benchmark"):
        with pytest.raises(ValueError, match=r"the norm of body.bn1.running_var must have weight, bias"):
            convert(state, to)


def test_deformable_layers_have_each_librarys_names():
    state = cfg_built().state_dict()
    keys = {
        "torchvision": "body.layer3.0.conv2.conv.weight body.layer3.0.conv2.offset.bias",
        "maskrcnn-benchmark": "body.layer3.0.conv2.conv.weight body.layer3.0.conv2.offset.bias",
        "detectron2": "bottom_up.res4.0.conv2.weight bottom_up.res4.0.conv2_offset.bias",
        "mmdetection": "backbone.layer3.0.conv2.weight backbone.layer3.0.conv2.conv_offset.bias",
    }
    for to, names in keys.items():
        weights = convert(state, to).weights
        assert all(name in weights for name in names.split()), to


def test_caffe2_folds_statistics_into_scale_and_shift():
    network = randomise(narrow_fpn())
    blobs = convert(network, "caffe2").content["blobs"]
    scale, shift = network.body.bn1.scale_and_shift()
    torch.testing.assert_close(blobs["res_conv1_bn_s"], scale)
    torch.testing.assert_close(blobs["res_conv1_bn_b"], shift)
    assert "fpn_inner_res5_1_sum_w" in blobs
    assert "fpn_inner_res4_1_sum_lateral_w" in blobs
    assert "fpn_res4_1_sum_b" in blobs
    assert not [key for key in blobs if "running" in key or "num_batches" in key]


def test_a_pair_of_pixels_that_changes_nothing():
    pair = ["torchvision", "torchvision"]
    conversion = convert(narrow_fpn().state_dict(), "detectron2", pixels=pair)
    assert any("already; the stem is unchanged" in note for note in conversion.notes)


def test_pixels_are_converted_once():
    state = randomise(narrow_fpn()).state_dict()
    there = convert(state, "detectron2", pixels="detectron2")
    weight = there.weights["bottom_up.stem.conv1.weight"]
    std = torch.tensor([57.375, 57.12, 58.395])[:, None, None]
    torch.testing.assert_close(weight, state["body.conv1.weight"].flip(1) / std)
    assert not any("unchanged" in note for note in there.notes)
    assert any("the stem is unchanged" in note for note in convert(state, "detectron2").notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "tensorflow"}, "to is 'tensorflow'; it must be one of torchvision"),
        ({"to": ["mmdet"]}, r"to is \['mmdet'\]; it must be one of torchvision"),
        ({"layout": "model"}, "layout is 'model'; it must be None or one of classifier"),
        ({"source": {"x": torch.zeros(1)}}, "no key is one of a ResNet"),
        ({"pixels": "rgb"}, "pixels is 'rgb'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        convert(**{"source": narrow_fpn(), "to": "detectron2", **arguments})


def test_the_program_converts(tmp_path):
    network = randomise(narrow_fpn())
    files.write(network.state_dict(), tmp_path / "in.pth", "torch")
    there = program(tmp_path / "in.pth", tmp_path / "out.pkl", "--to", "detectron2")
    assert there.returncode == 0, there.stderr
    assert "torchvision to detectron2: 116 tensors" in there.stdout
    back = program(tmp_path / "out.pkl", tmp_path / "back.safetensors", "--to", "torchvision", "--layout", "backbone")
    assert back.returncode == 0, back.stderr
    content = files.read(tmp_path / "back.safetensors")
    assert content.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        assert torch.equal(content[key], value), key


def test_mmdet_is_mmdetection(tmp_path):
    network = narrow_fpn()
    conversion = convert(network, "mmdet")
    assert conversion.target == "mmdetection"
    assert conversion.weights.keys() == convert(network, "mmdetection").weights.keys()
    files.write(network.state_dict(), tmp_path / "in.pth", "torch")
    result = program(tmp_path / "in.pth", tmp_path / "out.pth", "--to", "mmdet")
    assert result.returncode == 0, result.stderr
    assert "torchvision to mmdetection: " in result.stdout


def test_the_program_names_what_is_wrong(tmp_path):
    (tmp_path / "in.pth").write_bytes(b"")
    missing = program(tmp_path / "nowhere.pth", tmp_path / "out.pth", "--to", "detectron2")
    empty = program(tmp_path / "in.pth", tmp_path / "out.pth", "--to", "detectron2")
    for result, name in ((missing, "nowhere.pth"), (empty, "in.pth")):
        assert result.returncode == 1
        assert name in result.stderr
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "out.pth").exists()
    unknown = program(tmp_path / "in.pth", tmp_path / "out.pth", "--to", "tensorflow")
    assert unknown.returncode == 2
    assert "maskrcnn-benchmark" in unknown.stderr
