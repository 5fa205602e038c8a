//! Workload identities, trust bundles and rustls configurations that reload while connections live.
