//! The stage graph: threads, channels, order, batching, shutdown, statistics.
