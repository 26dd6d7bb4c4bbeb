"""One process of two without any network: how it ends when the other one does.

`python -m tests.distributed.peer PORT NUMBER HOW`: process 1 is killed, or leaves with a reason,
while process 0 waits for it; its patience is a second and a half here.
"""

import os
import signal
import sys
import time

from poison_t5x.train import distributed


def main(port: str, number: int, how: str) -> None:
    distributed.BEAT, distributed.PATIENCE = 0.2, 1.5
    distributed.initialize(distributed.ClusterConfig(f"localhost:{port}", 2, number))
    distributed.set_status("crafting")
    if number == 1 and how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 1 and how == "left":
        distributed.leave(2, "error: no such file")
    if how == "alive":
        distributed.await_verdict()
        distributed.barrier()
        print(distributed.who())
        return
    time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
