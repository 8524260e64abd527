//! Directories of distributed weights: `rank_<r>/<anything>.safetensors|.ckpt`.

/// The rank that a directory's name stands for: `rank_` and digits only.
#[must_use]
pub fn rank_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("rank_")?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The rank in whose directory the file at `path` inside a checkpoint is.
#[must_use]
pub fn rank_in(path: &str) -> Option<u32> {
    path.split_once('/').and_then(|(room, _)| rank_of(room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_digits_only() {
        assert_eq!(rank_of("rank_12"), Some(12));
        assert_eq!(
            (rank_of("rank_"), rank_of("rank_1a"), rank_of("xrank_1")),
            (None, None, None)
        );
    }
}
