"""How many examples a second the generated benchmarks make, texts and pictures, on one core.

python -m benches.world_speed [COUNT]
"""

from __future__ import annotations

import itertools
import resource
import sys
import time

from benchmarks.scenes.factuality import ScenesFactuality
from benchmarks.scenes.hallucination import ScenesHallucination


def main(count: int) -> None:
    """Prints examples per second of CPU time, drawn, and the peak memory of the process."""
    for benchmark in (ScenesHallucination(train=count), ScenesFactuality(train=count)):
        started = time.process_time()
        for example in itertools.islice(benchmark.load("train"), count):
            example.load_image()
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{benchmark.name}: {count / seconds:.0f} examples/s, {peak} MiB at most")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
