//! The open-set decision: who of the gallery, or nobody of it.
