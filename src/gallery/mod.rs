//! Who is known: people, their stills, templates, and how they lie on disk.
