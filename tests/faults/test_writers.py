"""Many processes write to one file at once: nobody is told that it is busy, and everybody gets a fair share."""

import os
import time

import pytest

from tests.faults.workload import Placed

WRITERS = 16
SECONDS = 3.0


@pytest.mark.alone
def test_sixteen_writers_share_one_file_fairly(scene):
    scene.prepare()
    begin, start = os.pipe()
    counts, says = os.pipe()

    def write(ready):
        shop = scene.shop()
        with shop.app.blocking() as b:
            ready()
            os.read(begin, 1)
            done, longest, end = 0, 0.0, time.monotonic() + SECONDS
            last = time.monotonic()
            while last < end:
                b.publish(Placed(f"k{done % 10}", str(os.getpid()), done + 1))
                now = time.monotonic()
                longest, last, done = max(longest, now - last), now, done + 1
        os.write(says, f"{done} {longest}\n".encode())

    writers = [scene.child(write) for _ in range(WRITERS)]
    for writer in writers:
        assert writer.wait_ready()
    os.write(start, b"!" * WRITERS)
    assert [writer.wait() for writer in writers] == [0] * WRITERS, "an error reached a caller (see above)"
    lines = os.read(counts, 65536).decode().split("\n")[:-1]
    done = sorted(int(line.split()[0]) for line in lines)
    longest = max(float(line.split()[1]) for line in lines)
    print(f"{sum(done) / SECONDS:,.0f} a second; slowest {done[0]}, fastest {done[-1]}; waits to {longest:.2f} s")
    assert len(done) == WRITERS
    assert done[0] >= done[-1] / 3
    assert longest < 2.0
