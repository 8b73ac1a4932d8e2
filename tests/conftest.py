from __future__ import annotations

import os

# One thread each: two threads that wait for each other beside a second busy process are many times slower than one.
os.environ["OMP_NUM_THREADS"] = "1"
