//! Boxes and names, drawn on I420 pictures.
