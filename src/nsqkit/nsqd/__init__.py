"""nsqd: receives messages, keeps them, and hands them to consumers."""
