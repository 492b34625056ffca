"""Where messages are kept: the log of each topic, and the files of NSQ that it replaces."""
