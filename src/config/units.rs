//! Durations and sizes as a person writes them.

use std::time::Duration;

/// What a duration looks like.
pub(super) const DURATION_FORM: &str = "a duration such as 250ms, 10s, 5m, 2h or 7d";

/// What a size looks like.
pub(super) const SIZE_FORM: &str = "a number of bytes, or a size such as 64KiB, 16MiB or 1GB";

/// Reads `250ms`, `10s`, `5m`, `2h`, `7d`: a whole number and its unit. `None` for anything else, also for a number
/// without a unit.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let ms_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(ms_per_unit)?))
}

/// Reads bytes: `4096`, or with a unit of 1,024 (`KiB`, `MiB`, `GiB`, `TiB`) or of 1,000 (`KB`, `MB`, `GB`, `TB`). `None`
/// for anything else.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes_per_unit: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(bytes_per_unit)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_their_unit() {
        let ms = |text: &str| duration(text).map(|found| found.as_millis());
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("10s"), Some(10_000));
        assert_eq!(ms("5m"), Some(300_000));
        assert_eq!(ms("2h"), Some(7_200_000));
        assert_eq!(ms("7d"), Some(604_800_000));
        for wrong in ["", "10", "s", "-1s", "1.5s", "10 weeks", "18446744073709551615d"] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_tell_1024_from_1000() {
        assert_eq!(size("4096"), Some(4_096));
        assert_eq!(size("16MiB"), Some(16 << 20));
        assert_eq!(size("1 GiB"), Some(1 << 30));
        assert_eq!(size("10MB"), Some(10_000_000));
        for wrong in ["", "MiB", "-1", "1.5GiB", "10Mb", "99999999999TiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }
}
