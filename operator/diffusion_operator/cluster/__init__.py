"""The operator's only I/O: the API server. Decides nothing; what to write comes from plans.

`kinds`, `client`, `errors` and `store` import no client library, so that everything above can be tested without one.
"""
