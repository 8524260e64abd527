//! Numbers of bytes in units that fit them.

/// A unit of bytes.
pub(super) struct Unit {
    /// Its name.
    pub(super) name: &'static str,
    /// How many bytes it is.
    pub(super) bytes: f64,
}

impl Unit {
    /// The largest of which `most` has one.
    pub(super) fn of(most: u64) -> Unit {
        let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
        let fits = units.into_iter().find(|(_, bytes)| real(most) >= *bytes);
        let (name, bytes) = fits.unwrap_or(("bytes", 1.0));
        Unit { name, bytes }
    }

    /// A round number of it that is no less than `most`: 4, 8, 12, 20, 40, 60 or 80 times a power of ten.
    pub(super) fn ceiling(&self, most: u64) -> f64 {
        let value = real(most.max(1)) / self.bytes;
        let power = 10f64.powf(value.log10().floor()) / 10.0;
        let steps = [12.0, 16.0, 20.0, 28.0, 40.0, 60.0, 80.0, 100.0];
        let step = steps.into_iter().find(|step| step * power >= value);
        step.unwrap_or(100.0) * power
    }
}

/// A number of bytes in the unit that fits it.
pub(crate) fn written(bytes: u64) -> String {
    let unit = Unit::of(bytes);
    format!("{} {}", short(real(bytes) / unit.bytes), unit.name)
}

/// Three digits, without zeros that say nothing.
pub(super) fn short(value: f64) -> String {
    let places = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Three digits that count.
pub(super) fn number(value: f64) -> String {
    let digits = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.9995 => 2,
        value if value >= 0.0009995 => 4,
        _ => 7,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// As a number that can be drawn.
#[allow(clippy::cast_precision_loss)]
pub(super) fn real(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_fit_the_numbers() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1500, "1.5 kB"),
            (12_345_678, "12.3 MB"),
        ] {
            assert_eq!(written(bytes), text);
        }
        assert!((Unit::of(3_100_000_000).ceiling(3_100_000_000) - 4.0).abs() < 1e-9);
        assert!((Unit::of(0).ceiling(0) - 1.0).abs() < 0.3);
    }
}
