"""Versions of the code that determines numbers: integers, raised by hand whenever the numbers change.

They replace hashes of source files: moving or rewording code changes nothing, and whoever changes a number raises
a version. `tests/system/test_golden.py` fails if numbers changed and the version didn't. After raising a version, run
`python -m scripts.golden` to update the expected values of that test.
"""

from __future__ import annotations

TRAINING = 3
"""What a run predicts and logs: data order, encoding, models, training, prediction, methods and generated data.

It is part of every run's identity and of the keys of the teacher cache. 1: releases 0.1.
"""

SCORING = 5
"""What is computed from predictions: figures, intervals, tables, and the answers and flags of controls.

It is part of the keys of rankings that are cached beside a catalogue. 1: releases 0.1.
"""

CATALOG = 5
"""The files of a compacted catalogue. Files of another version are ignored; `store compact` builds them again."""
