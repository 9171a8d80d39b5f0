"""Read image folders, arrays and benchmarks as a ``Source``, and split it."""

from daso.lazy import offer

TYPE_CHECKING = False  # importing typing takes longer than importing this package
if TYPE_CHECKING:
    from daso.data.images.decoded import DecodedImages as DecodedImages
    from daso.data.longtail import SplitOptions as SplitOptions
    from daso.data.open import open_source as open_source
    from daso.data.source import Source as Source
    from daso.data.training_data import TrainingData as TrainingData
    from daso.data.training_data import prepare_data as prepare_data

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "images.decoded": "DecodedImages",
        "longtail": "SplitOptions",
        "open": "open_source",
        "source": "Source",
        "training_data": "TrainingData prepare_data",
    },
)
