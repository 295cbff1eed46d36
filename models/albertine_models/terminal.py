"""What the command shows while it works: one line a step on standard error, counted in place on a terminal.

Colours appear on a terminal only, and never where NO_COLOR is set. Results go to standard output by the caller.
"""

import os
import sys
import time

# A redrawn counter more often than this only costs time.
SECONDS_BETWEEN_UPDATES = 0.2


class Terminal:
    """Progress and messages on one stream, which is standard error unless a test gives another."""

    def __init__(self, stream=None):
        self.stream = stream if stream is not None else sys.stderr
        self.interactive = self.stream.isatty()
        self.coloured = self.interactive and "NO_COLOR" not in os.environ

    def paint(self, text: str, code: str) -> str:
        """The text in an ANSI colour, or as it is where colours are off."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.coloured else text

    def say(self, text: str):
        """One finished line."""
        print(text, file=self.stream, flush=True)

    def done(self, text: str):
        """A step that ended well."""
        self.say(f"{self.paint('ok', '32')} {text}")

    def warn(self, text: str):
        """Something to know that stops nothing."""
        self.say(f"{self.paint('note', '33')} {text}")

    def fail(self, text: str):
        """The last line of a command that failed."""
        self.say(f"{self.paint('error:', '31;1')} {text}")

    def count(self, items, total: int, title: str):
        """Passes the items on and shows how many are done; without a terminal only the title is written."""
        if not self.interactive:
            self.say(f"{title} ({total:,})")
            yield from items
            return
        shown_at = 0.0
        for done, item in enumerate(items, 1):
            yield item
            if time.monotonic() - shown_at > SECONDS_BETWEEN_UPDATES:
                shown_at = time.monotonic()
                print(f"\r{title}: {done:,} of {total:,}\x1b[K", end="", file=self.stream, flush=True)
        print("\r\x1b[K", end="", file=self.stream, flush=True)
