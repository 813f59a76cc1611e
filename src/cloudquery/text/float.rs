//! Floats as Go writes them: the fewest digits that read back as the same number.

use std::fmt::Write as _;

/// A float of one of the two widths that have a text form. A float16 is written as the float32 that it is.
#[derive(Clone, Copy)]
pub(super) enum Float {
    Single(f32),
    Double(f64),
}

/// From this exponent on the form of a number alone is scientific.
const PLAIN_EXPONENT_MAX: i32 = 6;

/// A finite float as digits `d.ddd × 10^exponent`.
struct Digits {
    negative: bool,
    digits: String,
    exponent: i32,
}

impl Float {
    fn wide(self) -> f64 {
        match self {
            Self::Single(value) => f64::from(value),
            Self::Double(value) => value,
        }
    }

    /// `NaN`, `+Inf` or `-Inf`, or nothing where it is finite.
    fn special(self) -> Option<&'static str> {
        let value = self.wide();
        if value.is_nan() {
            Some("NaN")
        } else if value.is_infinite() {
            Some(if value > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            None
        }
    }

    fn digits(self) -> Digits {
        let text = match self {
            Self::Single(value) => format!("{value:e}"),
            Self::Double(value) => format!("{value:e}"),
        };
        let (mantissa, exponent) = text.split_once('e').expect("a finite float in scientific form has an exponent");
        Digits {
            negative: mantissa.starts_with('-'),
            digits: mantissa.chars().filter(char::is_ascii_digit).collect(),
            exponent: exponent.parse().expect("the exponent of a float is a number"),
        }
    }

    /// As it is written alone: `274.514`, `1e+30`, `1e-07`.
    pub(super) fn write(self, out: &mut String) {
        if let Some(special) = self.special() {
            out.push_str(special);
            return;
        }
        let digits = self.digits();
        if (-4..PLAIN_EXPONENT_MAX).contains(&digits.exponent) {
            digits.write_plain(out);
        } else {
            digits.write_scientific(out, 2);
        }
    }

    /// As it is written in JSON: a number, or a string where JSON has no number for it.
    pub(super) fn write_json(self, out: &mut String) {
        if let Some(special) = self.special() {
            // Writing to a String cannot fail, here and below.
            let _ = write!(out, "\"{special}\"");
            return;
        }
        let plain = match self {
            Self::Single(value) => value == 0.0 || (1e-6..1e21).contains(&value.abs()),
            Self::Double(value) => value == 0.0 || (1e-6..1e21).contains(&value.abs()),
        };
        let digits = self.digits();
        if plain {
            digits.write_plain(out);
        } else {
            digits.write_scientific(out, 1);
        }
    }
}

impl Digits {
    fn write_plain(&self, out: &mut String) {
        if self.negative {
            out.push('-');
        }
        let digits = &self.digits;
        match usize::try_from(self.exponent) {
            Ok(exponent) if exponent + 1 >= digits.len() => {
                out.push_str(digits);
                out.extend(std::iter::repeat_n('0', exponent + 1 - digits.len()));
            }
            Ok(exponent) => {
                let (whole, fraction) = digits.split_at(exponent + 1);
                let _ = write!(out, "{whole}.{fraction}");
            }
            Err(_) => {
                out.push_str("0.");
                out.extend(std::iter::repeat_n('0', self.exponent.unsigned_abs() as usize - 1));
                out.push_str(digits);
            }
        }
    }

    /// `1.5e+30`, with at least `width` digits in a negative exponent and two in another.
    fn write_scientific(&self, out: &mut String, width: usize) {
        let sign = if self.negative { "-" } else { "" };
        let (first, rest) = self.digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let (plus, width) = if self.exponent < 0 { ('-', width) } else { ('+', 2) };
        let _ = write!(out, "{sign}{first}{point}{rest}e{plus}{:0width$}", self.exponent.unsigned_abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(float: Float) -> String {
        let mut out = String::new();
        float.write(&mut out);
        out
    }

    fn json(float: Float) -> String {
        let mut out = String::new();
        float.write_json(&mut out);
        out
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (value, expected, in_json) in [
            (5.0, "5", "5"),
            (274.514, "274.514", "274.514"),
            (1e30, "1e+30", "1e+30"),
            (1e-7, "1e-07", "1e-7"),
            (-1.25e-10, "-1.25e-10", "-1.25e-10"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "1e-05", "0.00001"),
            (0.000001, "1e-06", "0.000001"),
            (123456.0, "123456", "123456"),
            (1234567.0, "1.234567e+06", "1234567"),
            (1e20, "1e+20", "100000000000000000000"),
            (1.5e21, "1.5e+21", "1.5e+21"),
            (0.0, "0", "0"),
            (-0.0, "-0", "-0"),
            (f64::MAX, "1.7976931348623157e+308", "1.7976931348623157e+308"),
            (5e-324, "5e-324", "5e-324"),
            (f64::NAN, "NaN", "\"NaN\""),
            (f64::INFINITY, "+Inf", "\"+Inf\""),
            (f64::NEG_INFINITY, "-Inf", "\"-Inf\""),
        ] {
            assert_eq!(alone(Float::Double(value)), expected);
            assert_eq!(json(Float::Double(value)), in_json);
        }
        assert_eq!(alone(Float::Single(274.514)), "274.514");
        assert_eq!(alone(Float::Single(1e-7)), "1e-07");
        assert_eq!(json(Float::Single(1e-6)), "0.000001");
        assert_eq!(json(Float::Single(16_777_216.0)), "16777216");
    }
}
