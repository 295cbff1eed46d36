"""What a process that draws batches knows; it starts without torch's state of the process that trains."""

known = {}


def remember(mixture):
    """The mixture that this process draws from."""
    known["mixture"] = mixture


def batches(chunk):
    """All batches of one chunk."""
    return known["mixture"].batches(chunk)
