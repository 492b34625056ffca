"""`nsqkit bench`: a load generator for any nsqd, over the wire protocol and HTTP only.

    cli.py        the command line -> a list of cases, a target, and what to do with the results
    scenarios.py  one function per question (publish, consume, ...); which connections, and when the clock runs
    clients.py    the connections: raw protocols that handle one event per chunk of bytes
    pace.py       a publisher at a fixed rate
    http_publisher.py  a publisher over HTTP
    frames.py     bytes <-> commands and frames
    server.py     the nsqd at the other end: find it, start it, stop it
    process.py    what its process used: CPU time, memory
    report.py     samples -> percentiles -> a table and JSON

It knows nothing of our nsqd, not even `nsqkit.wire`, so that ours and others are measured by the same tool, and a
mistake in our codec cannot hide in the measurement of it.
"""
