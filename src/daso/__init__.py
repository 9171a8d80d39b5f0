"""Train image classifiers from few, class-imbalanced labels and many unlabeled images."""

from daso.lazy import offer

TYPE_CHECKING = False  # that of typing, whose import takes longer than this package's
if TYPE_CHECKING:
    from daso.estimator import DASOClassifier as DASOClassifier
    from daso.export import load as load

__getattr__, __dir__, __all__ = offer(__name__, {"estimator": "DASOClassifier", "export": "load"})
