"""The versions of what decides numbers: whole numbers, raised by hand whenever the numbers change.

They stand in place of hashes of source files: moving or rewording code changes nothing, and whoever changes a
number says so. `tests/system/test_golden.py` watches: it fails where numbers changed and the version didn't. After
raising a version, `python -m scripts.golden` renews what the test compares with.
"""

from __future__ import annotations

TRAINING = 2
"""Of what a run predicts and logs: data order, encoding, models, training, prediction, methods and generated data.

It is part of every run's identity and of the keys of the teacher cache. 1: releases 0.1.
"""

SCORING = 2
"""Of what is computed from predictions: figures, intervals, tables, and the answers and flags of controls.

It is part of the keys of rankings that are kept beside a catalogue. 1: releases 0.1.
"""

CATALOG = 3
"""Of the files of a compacted catalogue. One of another version is left aside, and made anew by `store compact`."""
