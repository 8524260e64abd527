//! Sizes in bytes, as people write them.

/// Reads a size: a number and an optional unit.
///
/// # Errors
/// A text for the user.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => {
            return Err(format!(
                "'{unit}' is no unit of size (kB, MB, GB, KiB, MiB, GiB)"
            ));
        }
    };
    let bad = || format!("'{text}' is no size");
    let bytes = match number.split_once('.') {
        None => number
            .parse::<u64>()
            .map_err(|_| bad())?
            .checked_mul(factor)
            .ok_or_else(bad)?,
        Some((whole, fraction)) => {
            let fraction = fraction.get(..fraction.len().min(9)).unwrap_or_default();
            let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
            let whole: u128 = whole.parse().map_err(|_| bad())?;
            let part: u128 = if fraction.is_empty() {
                0
            } else {
                fraction.parse().map_err(|_| bad())?
            };
            let scaled = whole.checked_mul(scale).and_then(|w| w.checked_add(part));
            let bytes = scaled.and_then(|s| s.checked_mul(u128::from(factor)));
            u64::try_from(bytes.ok_or_else(bad)? / scale).map_err(|_| bad())?
        }
    };
    if bytes == 0 {
        Err("a size must not be 0".into())
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        assert_eq!(parse_size("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_size("1.5KiB"), Ok(1536));
        assert_eq!(parse_size("64 MiB"), Ok(64 << 20));
        assert_eq!(parse_size("7"), Ok(7));
        for bad in ["", "x", "5XB", "0", "-1", "99999999999999TB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
