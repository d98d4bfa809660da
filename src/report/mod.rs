//! Results a machine reads.
