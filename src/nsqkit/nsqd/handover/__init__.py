"""Taking over a data path of NSQ 1.3, and handing one back: the original's files, read and written."""
