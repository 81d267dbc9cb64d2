"""Looks ahead: why an engine would be built and what of it is in the store already. Changes nothing in the store.

`view.py` is the store as it is looked at, `difference.py` compares with engines that are there, `stages.py` walks a build's stages.
"""

from engine_builder.preview.difference import Difference, NearestEngine, nearest_engine
from engine_builder.preview.stages import StagePreview, StageState, preview_stages
from engine_builder.preview.view import StoreView

__all__ = ["Difference", "NearestEngine", "StagePreview", "StageState", "StoreView", "nearest_engine", "preview_stages"]
