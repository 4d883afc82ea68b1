"""Small COCO data sets made to order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

SQUARE = [[2, 3, 12, 3, 12, 9, 2, 9]]  # x 2..12, y 3..9


@pytest.fixture
def make_coco(tmp_path: Path):
    """A function that writes a data set and gives (images, annotations).

    ``annotations`` are those of the first image unless they say; what they lack of image_id and category_id is filled.
    Images are 16 x 20 pixels (height x width) unless the file is there already.
    """
    from PIL import Image

    def make(annotations, *, images=None, categories=None, name="coco") -> tuple[Path, Path]:
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True, exist_ok=True)
        images = images or [{"id": 1, "file_name": "one.png", "height": 16, "width": 20}]
        categories = categories or [{"id": 5, "name": "thing"}]
        for entry in images:
            path = folder / "images" / entry["file_name"]
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((16, 20, 3), 128, dtype=np.uint8)).save(path)
        filled = [{"image_id": images[0]["id"], "category_id": categories[0]["id"], **entry} for entry in annotations]
        content = {"images": images, "annotations": filled, "categories": categories}
        (folder / "instances.json").write_text(json.dumps(content))
        return folder / "images", folder / "instances.json"

    return make


@pytest.fixture
def square():
    """Polygons of a rectangle with x 2 to 12 and y 3 to 9."""
    return [list(part) for part in SQUARE]
