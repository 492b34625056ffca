"""The fault harness and the soak: a real nsqd under load, and what is done to it. See docs/faults.md, docs/soak.md."""
