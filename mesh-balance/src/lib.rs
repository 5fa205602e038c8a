//! A cloneable load balancer for tower clients: latency, weights and health, without a worker task or a lock.
