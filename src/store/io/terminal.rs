//! What a terminal tells of itself.

/// Columns of the terminal that standard output is; none if it is something else, or doesn't say.
#[must_use]
pub fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
