//! A measurement as one page that needs nothing else.

use crate::measure::bench::Measured;
use crate::report::benched;
use crate::report::svg::escape;

/// The page.
pub(super) fn page(measured: &Measured) -> String {
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>bench {}</title>\n<pre>{}</pre>\n{}",
        measured.bench,
        escape(&benched::measured(measured)),
        benched::picture(measured)
    )
}
