"""Training: options, batches, the loop, checkpoints and run folders."""

from daso.lazy import offer

TYPE_CHECKING = False  # that of typing, whose import takes longer than this package's
if TYPE_CHECKING:
    from daso.train.evaluation import evaluate_network as evaluate_network
    from daso.train.loop import fit as fit
    from daso.train.options import TrainOptions as TrainOptions
    from daso.train.step.batches import Batches as Batches
    from daso.train.step.state import Training as Training
    from daso.train.view_options import VectorViewOptions as VectorViewOptions
    from daso.train.view_options import ViewOptions as ViewOptions

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "evaluation": "evaluate_network",
        "loop": "fit",
        "options": "TrainOptions",
        "step.batches": "Batches",
        "step.state": "Training",
        "view_options": "VectorViewOptions ViewOptions",
    },
)
