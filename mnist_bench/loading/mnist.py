"""The verified images as torchvision reads them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from torch import library

# torchvision's own operators, which a CPU build of torch lacks when torchvision is a CUDA build. Data sets and
# transforms never call them; their schemas must only be there at import. Kept alive by this name.
_schemas: list[library.Library] = []


def import_torchvision() -> ModuleType:
    """Imports torchvision, also the CUDA build beside a CPU build of torch (``doctor`` names that mismatch)."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    operators = library.Library("torchvision", "DEF")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _schemas.append(operators)
    return importlib.import_module("torchvision")
