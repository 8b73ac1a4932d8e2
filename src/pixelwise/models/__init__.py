"""The systems, one file each; importing this package fills the catalogue."""

from pixelwise.models import unet
from pixelwise.registry import create_model, list_models, model_info, model_options

__all__ = ["create_model", "list_models", "model_info", "model_options", "unet"]
