//! Carrying HTTP/1, HTTP/2, gRPC and opaque TCP: detection, upgrades, pools and draining.
