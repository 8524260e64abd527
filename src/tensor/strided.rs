//! The copy nest: build, merge, clip.
