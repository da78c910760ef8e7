"""placeholder"""
from tamis.data.settings import Settings
class StaticSVD(Settings):
    dim: int = 256
    stemmer: str | None = "english"
    stopwords: str | None = "english"
