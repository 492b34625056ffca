"""nsqd's HTTP API: its endpoints, each one function and one row. The table is in `nsqd/http.py`, the rest in `web`."""
