"""The store: encoders. The only room that loads weights for inference; torch is imported when a model needs it."""

from tamis.models.encoder import Encoder, load_encoder
from tamis.models.static import StaticEncoder

__all__ = ["Encoder", "StaticEncoder", "load_encoder"]
