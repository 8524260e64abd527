//! Curves over sizes, both axes by powers, for a page that may be light or dark.

use crate::report::svg::escape;
use std::fmt::Write;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 34.0;
/// Most marks on an axis.
const MARKS_MAX: f64 = 7.0;

/// One line: its name, and points.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// A picture of some curves.
pub(super) struct Curves {
    pub(super) title: String,
    pub(super) curves: Vec<Curve>,
    /// What a value of the horizontal axis is called, and one of the vertical axis.
    pub(super) across: fn(f64) -> String,
    pub(super) up: fn(f64) -> String,
}

/// An axis by powers of `base`, which begins and ends with one.
struct Axis {
    base: f64,
    first: f64,
    last: f64,
}

impl Axis {
    fn over(base: f64, values: impl Iterator<Item = f64>) -> Axis {
        let powers = values
            .filter(|value| *value > 0.0)
            .map(|value| value.log(base));
        let (mut first, mut last) = (f64::INFINITY, f64::NEG_INFINITY);
        for power in powers {
            first = first.min(power);
            last = last.max(power);
        }
        let (first, last) = if first.is_finite() {
            ((first + 1e-9).floor(), (last - 1e-9).ceil())
        } else {
            (0.0, 1.0)
        };
        let last = if last > first { last } else { first + 1.0 };
        Axis { base, first, last }
    }

    /// Where a value is, of the whole.
    fn share(&self, value: f64) -> f64 {
        (value.log(self.base) - self.first) / (self.last - self.first)
    }

    /// The powers that are marked.
    fn marks(&self) -> Vec<f64> {
        let step = ((self.last - self.first) / MARKS_MAX).ceil().max(1.0);
        let mut marks = Vec::new();
        let mut power = self.first;
        while power <= self.last + 1e-9 {
            marks.push(self.base.powf(power));
            power += step;
        }
        marks
    }
}

impl Curves {
    /// The picture, which takes its colours from the page. Curves of one point are dots.
    pub(super) fn draw(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| curve.points.iter());
        let across = Axis::over(2.0, points().map(|point| point.0));
        let up = Axis::over(10.0, points().map(|point| point.1));
        let x = |value: f64| LEFT + across.share(value) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - up.share(value) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">\n<text class=\"title\" x=\"{LEFT}\" y=\"16\">{0}</text>\n",
            escape(&self.title)
        );
        for mark in up.marks() {
            let (right, at) = (WIDTH - RIGHT, y(mark));
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                escape(&(self.up)(mark))
            );
        }
        for mark in across.marks() {
            let (bottom, at) = (HEIGHT - BOTTOM, x(mark));
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                escape(&(self.across)(mark))
            );
        }
        for (number, curve) in self.curves.iter().enumerate() {
            let mut line = String::new();
            for (across, up) in curve
                .points
                .iter()
                .filter(|point| point.0 > 0.0 && point.1 > 0.0)
            {
                let _ = write!(line, "{:.1},{:.1} ", x(*across), y(*up));
                let _ = writeln!(
                    out,
                    "<circle class=\"c{number}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"><title>{}: {}, {}</title></circle>",
                    x(*across),
                    y(*up),
                    escape(&curve.name),
                    escape(&(self.across)(*across)),
                    escape(&(self.up)(*up))
                );
            }
            let _ = writeln!(
                out,
                "<polyline class=\"c{number}\" points=\"{}\"/>",
                line.trim_end()
            );
        }
        out.push_str("</svg>\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_powers_and_keeps_curves_inside() {
        let axis = Axis::over(2.0, [8.0, 1_048_576.0].into_iter());
        assert!((axis.share(8.0)).abs() < 1e-9 && (axis.share(1_048_576.0) - 1.0).abs() < 1e-9);
        assert!(axis.marks().len() <= 8 && (axis.marks()[0] - 8.0).abs() < 1e-9);
        let picture = Curves {
            title: "a < b".into(),
            curves: vec![Curve {
                name: "x".into(),
                points: vec![(8.0, 0.5), (64.0, 0.0), (512.0, 3.0)],
            }],
            across: |value| format!("{value}"),
            up: |value| format!("{value}"),
        };
        let drawn = picture.draw();
        assert_eq!(drawn.matches("<circle").count(), 2, "{drawn}");
        assert!(drawn.contains("a &lt; b") && !drawn.contains("NaN") && !drawn.contains("inf"));
    }
}
