"""HTTP as every daemon serves it: the machinery between a socket and an endpoint. A daemon brings a table of endpoints.

    server -> app -> row of the table (routes) -> body and query (call) -> endpoint -> value or HttpError -> answers

`pprof` holds the endpoints that all daemons share.
"""
