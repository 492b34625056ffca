"""Telling nsqlookupds what there is, and asking them what there is elsewhere."""
