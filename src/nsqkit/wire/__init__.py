"""The wire protocol V2: bytes to objects and back, shared by the daemons and the client. No I/O in here."""
