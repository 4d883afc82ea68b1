"""``keypoints_of`` for ``custom_translation_table``: a loop over detections. Importing this module needs onnxscript."""

from __future__ import annotations

from onnxscript import FLOAT, script  # type: ignore[import-not-found, unused-ignore]
from onnxscript import opset18 as op
from onnxscript.values import Opset  # type: ignore[import-not-found, unused-ignore]


@script(Opset("resnet_cuda_export", 1), default_opset=op)
def onnx_keypoints_of(maps: FLOAT, boxes: FLOAT) -> tuple[FLOAT, FLOAT]:
    # Names of values in the file: none may be that of an output, such as scores.
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    two = op.Constant(value_ints=[2])
    corner = op.Slice(boxes, zero, two, one)  # (K, 2), (x, y) as in all of these
    end = op.Slice(boxes, two, op.Constant(value_ints=[4]), one)
    extent = op.Max(op.Sub(end, corner), op.Constant(value_floats=[1.0]))
    cells = op.Ceil(extent)
    points = op.Shape(maps, start=1, end=2)
    number = op.Squeeze(op.Shape(maps, start=0, end=1))
    nothing = op.Constant(value_floats=[0.0])
    places_of_points = op.Expand(nothing, op.Concat(zero, points, two, axis=0))
    scores_of_points = op.Expand(nothing, op.Concat(zero, points, axis=0))
    for i in range(number):
        its_cells = op.Gather(cells, i)
        whole = op.Cast(its_cells, to=7)  # int64
        width = op.Slice(whole, zero, one)
        height = op.Slice(whole, one, two)
        its_map = op.Unsqueeze(op.Gather(maps, i), zero)
        size = op.Concat(one, points, height, width, axis=0)
        resized = op.Resize(its_map, None, None, size, mode="cubic", cubic_coeff_a=-0.75)
        flat = op.Reshape(resized, op.Concat(points, op.Constant(value_ints=[-1]), axis=0))
        best = op.ArgMax(flat, axis=1, keepdims=1)  # (P, 1)
        cell = op.Cast(op.Concat(op.Mod(best, width), op.Div(best, width), axis=1), to=1)  # float32
        step = op.Div(op.Gather(extent, i), its_cells)
        centre = op.Add(cell, op.Constant(value_floats=[0.5]))
        its_places = op.Add(op.Mul(centre, step), op.Gather(corner, i))
        places_of_points = op.Concat(places_of_points, op.Unsqueeze(its_places, zero), axis=0)
        scores_of_points = op.Concat(scores_of_points, op.Transpose(op.GatherElements(flat, best, axis=1)), axis=0)
    visible = op.Expand(op.Constant(value_floats=[1.0]), op.Concat(op.Shape(scores_of_points), one, axis=0))
    return op.Concat(places_of_points, visible, axis=2), scores_of_points
