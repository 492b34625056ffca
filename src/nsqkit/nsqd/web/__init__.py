"""nsqd's HTTP API: what each endpoint does, and how its answer looks. The server around it is `nsqd/http.py`.

    front (app) -> row of the table (routes) -> body and query (call) -> endpoint -> value or HttpError -> answers

Endpoints are in `publishing`, `topics`, `info`, `debug` and `legacy`; each is one function and one row.
"""
