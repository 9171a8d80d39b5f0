"""Training: options, batches, the loop, checkpoints and run folders."""

from daso.lazy import offer

TYPE_CHECKING = False  # that of typing, whose import takes longer than this package's
if TYPE_CHECKING:
    from daso.train.loop import evaluate_network as evaluate_network
    from daso.train.loop import fit as fit
    from daso.train.options import TrainOptions as TrainOptions
    from daso.train.step.batches import Batches as Batches
    from daso.train.step.state import Training as Training
    from daso.train.view_options import VectorViewOptions as VectorViewOptions
    from daso.train.view_options import ViewOptions as ViewOptions

__all__ = [
    "Batches",
    "TrainOptions",
    "Training",
    "VectorViewOptions",
    "ViewOptions",
    "evaluate_network",
    "fit",
]
__getattr__, __dir__ = offer(
    __name__,
    {
        "Batches": "daso.train.step.batches",
        "TrainOptions": "daso.train.options",
        "Training": "daso.train.step.state",
        "VectorViewOptions": "daso.train.view_options",
        "ViewOptions": "daso.train.view_options",
        "evaluate_network": "daso.train.loop",
        "fit": "daso.train.loop",
    },
)
