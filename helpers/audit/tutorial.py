"""What the tutorial says, word for word, and what is often said and it does not say.

The series judges "Image Classification with Attention" (Ibtesam Ahmed, Paperspace blog) by its own
words. Whoever quotes it, in a notebook or on a page, quotes from QUOTATIONS; a sentence that people
say of attention and the tutorial does not stands in OFTEN_SAID, and is called so wherever it is
judged. A test compares every quotation of the project with these two lists.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Quotation(NamedTuple):
    """A passage of the tutorial, or a sentence that is often said."""

    name: str  # by which claims refer to it
    words: str  # word for word, the tutorial's spelling and grammar included
    where: str  # the step of the tutorial in which it stands
    photographs: str  # of which it is said: "malignant", "benign", "all"; "" where of none


TITLE = "Image Classification with Attention"

QUOTATIONS = (
    Quotation(
        "post-hoc",
        "Post-hoc analysis like Grad-CAM are not the same as attention. They are not intended to "
        "change the way the model learns, or to change what the model learns.",
        "why attention in images",
        "",
    ),
    Quotation(
        "important parts",
        "It is important to understand which part of the image contributes more towards the "
        "cancer being classified benign/malignant.",
        "why attention in images",
        "all",
    ),
    Quotation(
        "responsible parts",
        "to understand which part of the image are responsible for the classification",
        "the attention maps",
        "all",
    ),
    Quotation(
        "malignant maps",
        "The way this works for malignant images :- The shallower layer (pool-3) tends to focus on "
        "more general and diffused areas, while the deeper layer (pool-4) is more concentrated, "
        "focusing on the lesion and avoiding irrelevant pixels.",
        "the attention maps",
        "malignant",
    ),
    Quotation(
        "benign maps",
        "But since most images in our case are benign, pool-3 tries to learn some areas but pool-4 "
        "eventually minimizes the activated regions because the image is benign.",
        "the attention maps",
        "benign",
    ),
    Quotation(
        "lighter",
        "the original paper also claims that due to the elimination of Dense Layers, the number of "
        "parameters are greatly reduced and the network is lighter to train.",
        "the model",
        "",
    ),
    Quotation(
        "focal loss",
        "focal loss can automatically down-weight samples in the training set",
        "the loss",
        "all",
    ),
    Quotation("unbalanced", "our data is unbalanced", "the loss", "all"),
    Quotation("competition", "the design won the ImageNet competition in 2014", "the model", ""),
    Quotation(
        "dense layers",
        "In the end there are 2 Dense layers followed by a softmax layer.",
        "the model",
        "",
    ),
    Quotation("validation", "The validation AUC looks good", "training", "all"),
    Quotation("eyes", "mystery eyes", "why attention in images", ""),
)

OFTEN_SAID = (
    Quotation("better than Grad-CAM", "Attention explains better than Grad-CAM", "", "all"),
    Quotation(
        "better than post-hoc",
        "Attention explains better than other post-hoc methods",
        "",
        "all",
    ),
    Quotation("better AUC", "Attention improves the AUC", "", "all"),
)


def normalise(words: str) -> str:
    """Words as they are compared: spaces, the shape of quotation marks and the end do not matter.

    >>> normalise("The  validation “AUC”\\nlooks good.")
    'The validation "AUC" looks good'
    """
    straight = re.sub("[“”]", '"', words).replace("’", "'")
    return re.sub(r"\s+", " ", straight).strip(" .,;:")


def is_said(words: str, passages: Iterable[Quotation]) -> bool:
    """Whether these words stand in one of the passages, whole words in a row.

    Args:
        words: a quotation; " ... " stands for what it leaves out within one passage.
        passages: QUOTATIONS or OFTEN_SAID.

    >>> is_said("pool-4 eventually minimizes the activated regions", QUOTATIONS)
    True
    >>> is_said("pool-4 minimises its activation", QUOTATIONS)
    False
    """
    parts = [normalise(part) for part in re.split(r"\.\.\.|…", words)]
    kept = [re.escape(part) for part in parts if part]
    pattern = r"(?<!\w)" + r"(?!\w).*(?<!\w)".join(kept) + r"(?!\w)"
    return bool(kept) and any(re.search(pattern, normalise(said.words)) for said in passages)


def by_name(name: str) -> Quotation:
    """The passage of this name, of QUOTATIONS or of OFTEN_SAID.

    Raises:
        KeyError: there is none.
    """
    for passage in (*QUOTATIONS, *OFTEN_SAID):
        if passage.name == name:
            return passage
    known = ", ".join(passage.name for passage in (*QUOTATIONS, *OFTEN_SAID))
    raise KeyError(f"no passage of the tutorial is named {name!r}; there are {known}")


def quoted(name: str, words: str = "") -> str:
    """The words of a passage, or a part of them that was checked to stand in it.

    Args:
        name: of the passage.
        words: the part that is quoted; all if not given.

    Raises:
        KeyError: there is no passage of this name.
        ValueError: the passage does not hold these words.

    >>> quoted("malignant maps", "focusing on the lesion and avoiding irrelevant pixels")
    'focusing on the lesion and avoiding irrelevant pixels'
    """
    passage = by_name(name)
    if words and not is_said(words, [passage]):
        raise ValueError(
            f"the passage {name!r} does not hold the words {words!r}: quote what stands there, "
            f"which is {passage.words!r}"
        )
    return words or passage.words
