//! Services, workloads and endpoints: one compact registry, many cheap watchers.
