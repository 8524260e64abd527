//! The hot loops: free functions on slices.
