"""Topics and channels as an NSQ that was stopped leaves them, for what is measured beside many of them."""

import json


def write_metadata(path: str, topics: int, channels: int) -> None:
    """So many topics, with so many channels each."""
    known = [{"name": f"channel-{number}", "paused": False} for number in range(channels)]
    found = [{"name": f"topic-{number}", "paused": False, "channels": known} for number in range(topics)]
    with open(path, "w") as file:
        json.dump({"version": "1.3.0", "topics": found}, file)
