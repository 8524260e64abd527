//! Which replica stays when redundancy is removed.
