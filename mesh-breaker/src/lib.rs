//! Circuit breakers as values: when an endpoint is out, and when to try it again.
