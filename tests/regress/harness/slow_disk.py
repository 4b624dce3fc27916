"""A disk that does not come back for a while, by slow_disk.c."""

import os

from .journal import poll


class SlowDisk:
    """Of whoever is started with `environment`, on the files whose path has NAME in it."""

    def __init__(self, directory, library, name):
        self.flag = os.path.join(directory, "slow")
        self.environment = {"LD_PRELOAD": library, "SLOW_FLAG": self.flag, "SLOW_FILE": name}

    def hang(self):
        with open(self.flag, "wb"):
            pass

    def wait_reached(self):
        poll(lambda: os.path.exists(self.flag + ".reached"), "somebody who waits for the disk")

    def go_on(self):
        if os.path.exists(self.flag):
            os.unlink(self.flag)
