"""Made-up targets, scores and tables of lesions, and AUC and its interval by other means."""

import math

import numpy as np
import pandas as pd


def examples(seed: int, count: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Targets of both classes and scores that know something of them, all different or tied."""
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.r_[0, 1, rng.random(count - 2) < 0.4].astype(int))
    scores = rng.normal(size=count) + targets
    return targets, np.round(scores) if ties else scores


def source_table(seed: int, count: int, *, ties: bool = False) -> pd.DataFrame:
    """Rows as in predictions.csv: sources A and B with both classes twice over, C benign alone."""
    targets, scores = examples(seed, count, ties=ties)
    source = np.random.default_rng(100 + seed).choice(["A", "B"], count)
    source[:4] = ["A", "A", "B", "B"]
    targets[:4] = [0, 1, 0, 1]
    table = pd.DataFrame(
        {
            "image_id": [f"X_{row}" for row in range(count)],
            "source": source,
            "group": np.arange(count) // 3,
            "target": targets,
            "logit": scores,
        }
    )
    table.loc[(table["target"] == 0) & (table.index % 7 == 6), "source"] = "C"
    return table.sample(frac=1, random_state=seed)


def patients(seed: int) -> pd.DataFrame:
    """100 patients of 1 to 9 photographs, 30 with melanomas alone, and two networks' logits.

    Photographs of a patient are alike to both networks: of a logit's variance in a class a half is
    the patient's, the same to both, a quarter the patient's to this network, and a quarter the
    photograph's.
    """
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(100), rng.integers(1, 10, 100))
    target = (patient < 30).astype(int)
    shared = rng.normal(size=100)[patient] * math.sqrt(0.5)
    table = pd.DataFrame(
        {"image_id": np.arange(len(patient)), "split": "test", "group": patient, "target": target}
    )
    for name, shift in (("logit", 1.2), ("second", 0.9)):
        own = 0.5 * rng.normal(size=100)[patient] + 0.5 * rng.normal(size=len(patient))
        table[name] = shift * target + shared + own
    return table


def auc_ap_by_pairs(targets: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """AUC as the share of pairs in the right order (ties half), AP summed over thresholds."""
    difference = scores[targets == 1][:, None] - scores[targets == 0][None, :]
    recall = 0.0
    ap = 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = targets[scores >= threshold]
        before = recall
        recall = called.sum() / targets.sum()
        ap += (recall - before) * called.mean()
    return ((difference > 0) + (difference == 0) / 2).mean(), ap


def delong(targets: np.ndarray, *scores: np.ndarray) -> tuple[float, float]:
    """95% interval of the AUC, or of the first scores' less the second's.

    From structural components: DeLong, DeLong and Clarke-Pearson, Biometrics 1988. It takes every
    photograph for independent.
    """
    right = []  # [positives, negatives] each
    for values in scores:
        gaps = values[targets == 1][:, None] - values[targets == 0][None, :]
        right.append((gaps > 0) + 0.5 * (gaps == 0))
    right = right[0] - right[1] if len(right) == 2 else right[0]
    variance = right.mean(axis=1).var(ddof=1) / len(right)
    variance += right.mean(axis=0).var(ddof=1) / right.shape[1]
    half = 1.96 * math.sqrt(variance)
    return right.mean() - half, right.mean() + half
