//! How this program was built.

/// The version, and the commit where it is known: it is of release builds from a repository.
#[must_use]
pub fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    commit().map_or_else(
        || version.to_owned(),
        |commit| format!("{version} ({commit})"),
    )
}

/// The commit, if it is known.
#[must_use]
pub fn commit() -> Option<&'static str> {
    option_env!("SHARDLOOM_COMMIT").filter(|commit| !commit.is_empty())
}

/// `release` or `development`.
#[must_use]
pub fn profile() -> &'static str {
    match cfg!(debug_assertions) {
        true => "development",
        false => "release",
    }
}

/// The features that it has of those that can be left out.
#[must_use]
pub fn features() -> &'static [&'static str] {
    match cfg!(feature = "mpi") {
        true => &["mpi"],
        false => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_told_where_it_is_known() {
        let told = version();
        assert!(told.starts_with(env!("CARGO_PKG_VERSION")));
        assert_eq!(told.ends_with(')'), commit().is_some());
    }
}
