"""The broker: topics, channels, sessions. No sockets, no clock, no disk, no threads in here."""
