"""The operator's auth servers, which say what clients may do (spec/tcp-protocol.md, section 9)."""


class NoAnswer(Exception):
    """A server gave no answer that can be used; the text says why, without a word of what came or was sent."""
