//! The metric families of a service mesh, with counters that cost an atomic add.
