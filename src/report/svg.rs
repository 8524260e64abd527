//! Pictures: bars or lines over a row of labels, as SVG.

use std::fmt::Write;

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A group of bars for each label.
    Bars,
    /// A line through the values of each series.
    Lines,
}

/// Values by label, in several series.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    /// What the numbers are.
    pub(super) unit: &'static str,
    pub(super) style: Style,
    pub(super) labels: Vec<String>,
    /// Name, and a value for each label (or none).
    pub(super) series: Vec<(String, Vec<Option<f64>>)>,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 6] = [
    "#3266ad", "#d9822b", "#3a9d5d", "#b0413e", "#7a5aa6", "#4f8a8b",
];
/// Most labels written below the axis.
const LABELS_MAX: usize = 16;

impl Chart {
    /// The picture.
    pub(super) fn draw(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
        );
        let _ = writeln!(
            out,
            r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/><text x="{LEFT}" y="24" font-size="16">{}</text>"##,
            escape(&self.title)
        );
        let top = nice(self.values().fold(0.0, f64::max));
        self.axes(&mut out, top);
        for (number, (name, values)) in self.series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let x = LEFT + 140.0 * float(number);
            let _ = writeln!(
                out,
                r#"<rect x="{x:.1}" y="38" width="12" height="12" fill="{colour}"/><text x="{:.1}" y="48">{}</text>"#,
                x + 17.0,
                escape(name)
            );
            match self.style {
                Style::Bars => self.bars(&mut out, number, values, top, colour),
                Style::Lines => self.line(&mut out, values, top, colour),
            }
        }
        out.push_str("</svg>\n");
        out
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let values = self.series.iter().flat_map(|(_, values)| values);
        values.flatten().copied().filter(|value| value.is_finite())
    }

    /// Width of a label's share of the axis.
    fn step(&self) -> f64 {
        (WIDTH - LEFT - RIGHT) / float(self.labels.len().max(1))
    }

    fn axes(&self, out: &mut String, top: f64) {
        for tick in 0..=4u8 {
            let share = f64::from(tick) / 4.0;
            let y = place(share);
            let _ = writeln!(
                out,
                r##"<line x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}" stroke="#d0d0d0"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                number(top * share)
            );
        }
        let _ = writeln!(
            out,
            r#"<text x="{LEFT}" y="{:.1}" text-anchor="end">{}</text>"#,
            TOP - 10.0,
            escape(self.unit)
        );
        let every = self.labels.len().div_ceil(LABELS_MAX).max(1);
        for (index, label) in self.labels.iter().enumerate().step_by(every) {
            let _ = writeln!(
                out,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                LEFT + self.step() * (float(index) + 0.5),
                HEIGHT - BOTTOM + 18.0,
                escape(label)
            );
        }
    }

    fn bars(
        &self,
        out: &mut String,
        series: usize,
        values: &[Option<f64>],
        top: f64,
        colour: &str,
    ) {
        let width = self.step() * 0.8 / float(self.series.len().max(1));
        for (index, value) in values.iter().enumerate() {
            let Some(value) = value.filter(|value| value.is_finite()) else {
                continue;
            };
            let x = LEFT + self.step() * (float(index) + 0.1) + width * float(series);
            let y = place(value / top);
            let _ = writeln!(
                out,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.2}" height="{:.1}" fill="{colour}"/>"#,
                HEIGHT - BOTTOM - y
            );
        }
    }

    fn line(&self, out: &mut String, values: &[Option<f64>], top: f64, colour: &str) {
        let mut points = String::new();
        for (index, value) in values.iter().enumerate() {
            if let Some(value) = value.filter(|value| value.is_finite()) {
                let x = LEFT + self.step() * (float(index) + 0.5);
                let _ = write!(points, "{x:.1},{:.1} ", place(value / top));
            }
        }
        let _ = writeln!(
            out,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            points.trim_end()
        );
    }
}

/// Height of a share of the largest value.
fn place(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

/// The next number like 1, 2, 4 or 8 times a power of ten.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 8.0];
    let step = steps.iter().find(|step| **step * power >= value);
    step.map_or(10.0 * power, |step| step * power)
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// As a number that can be drawn.
#[allow(clippy::cast_precision_loss)]
pub(super) fn float(index: usize) -> f64 {
    index as f64
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_what_it_is_given_and_no_markup_of_others() {
        let chart = Chart {
            title: "a < b".into(),
            unit: "GB",
            style: Style::Bars,
            labels: vec!["0".into(), "1".into()],
            series: vec![("read".into(), vec![Some(3.0), None])],
        };
        let picture = chart.draw();
        assert!(picture.contains("a &lt; b") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.matches("<rect").count(), 3);
        assert!((nice(3.0) - 4.0).abs() < 1e-9 && (nice(0.9) - 1.0).abs() < 1e-9);
        let lines = Chart {
            style: Style::Lines,
            ..chart
        };
        assert_eq!(lines.draw().matches("<polyline").count(), 1);
    }
}
