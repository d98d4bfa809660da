//! Hostile and odd files.
