"""The package behind the notebooks, in folders by task; a folder imports those above it alone.

hosts        which host this is; bring what is missing there
workspace    folders, device, precision, seeds, files whole or not at all
model        03: AttentionBlock, AttnVGG
photographs  01, 02: sources, reading, tables, the split, the pixel cache, look-alikes
training     04: settings, augmentation, batches, losses, the loop, checkpoints
scores       from 04 on: the bootstrap over groups, figures of merit, baselines
pictures     05: style, maps on photographs, the explorer, sliders without a kernel, diagrams
audit        06, 07: attribution, localisation, evidence, costs; the tutorial's words and claims
runs         the command line: the series through papermill, grids, comparison

Three commands stand beside the folders: `python -m helpers.run`, `helpers.train`, and
`helpers.preprocess`.
"""

import os

# PyTorch's threads wait for each other at the end of each operation. GNU's OpenMP lets them spin a
# while first, which on a busy machine takes the processor from the one they wait for: beside
# another program a step of training takes twice as long. It is read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
