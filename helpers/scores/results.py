"""From a training's predictions to what 04 leaves, in one call.

Notebook 04 takes these steps one by one for its network; its control, and `helpers.train`, take
them here.
"""

import pandas as pd

from helpers.scores import metrics
from helpers.training.settings import RECIPES, Settings


def calibrate_and_summarise(
    predictions: pd.DataFrame, split: pd.DataFrame, settings: Settings
) -> tuple[pd.DataFrame, dict]:
    """Calibrate on validation, choose the threshold there, and count on test.

    Args:
        predictions: of `loop.predict_held_out`.
        split: of split.csv.
        settings: that the network was trained with; its recipe and weights count.

    Returns:
        The predictions with the column `probability`, and the content of metrics.json, but for the
        guesses that see no lesion (`baselines`).

    Raises:
        ValueError: val or test has no photographs, or one class.
    """
    val = predictions[predictions["split"] == "val"]
    shift = metrics.prior_shift(split, RECIPES[settings.recipe].melanoma_times)
    calibration = metrics.calibrate(val["logit"], val["target"], val["group"], shift=shift)
    probability = metrics.probability(predictions["logit"], calibration)
    predictions = predictions.assign(probability=probability)
    threshold = metrics.choose_threshold(val["target"], predictions.loc[val.index, "probability"])
    content = metrics.summarise(
        predictions, calibration=calibration, threshold=threshold, weights=settings.weights
    )
    return predictions, content
