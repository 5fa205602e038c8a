//! What a request or a connection may do: routes, timeouts and authorization, as values.
