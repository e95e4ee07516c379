//! Ranges in arguments: `/data{1...4}`, three dots, several of them multiply.
//!
//! The order of expansion is part of a deployment's layout and never changes: **the leftmost range
//! varies fastest**, so that consecutive endpoints are on different nodes first.

use super::DRIVES_MAX;

/// One range and the text that follows it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Range {
    values: Vec<String>,
    suffix: String,
}

/// An argument with at least one range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    prefix: String,
    /// From left to right.
    ranges: Vec<Range>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("`{0}` is not a range of the form {{N...M}}")]
    Range(String),
    #[error("the range {{{first}...{last}}} runs backwards")]
    Backwards { first: String, last: String },
    #[error("a brace or three dots stand outside a range of the form {{N...M}}")]
    Stray,
    #[error("it expands to more than {DRIVES_MAX} drives")]
    TooMany,
}

/// Whether an argument is meant as a pattern, well formed or not.
pub fn is_pattern(argument: &str) -> bool {
    argument.contains("...") || (argument.contains('{') && argument.contains('}'))
}

impl Pattern {
    pub fn parse(argument: &str) -> Result<Self, Malformed> {
        let (prefix, mut rest) = split_at_brace(argument)?;
        let mut ranges = Vec::new();
        let mut total = 1usize;
        while let Some(range) = rest {
            let (inside, after) = range.split_once('}').ok_or(Malformed::Stray)?;
            let values = values_of(inside)?;
            total = total.saturating_mul(values.len());
            if total > DRIVES_MAX {
                return Err(Malformed::TooMany);
            }
            let (suffix, next) = split_at_brace(after)?;
            ranges.push(Range { values, suffix: suffix.to_owned() });
            rest = next;
        }
        if ranges.is_empty() {
            return Err(Malformed::Stray);
        }
        Ok(Self { prefix: prefix.to_owned(), ranges })
    }

    /// How many values the leftmost range has: with URLs, the nodes.
    pub fn leftmost_length(&self) -> usize {
        self.ranges[0].values.len()
    }

    pub fn expand(&self) -> Vec<String> {
        let total = self.ranges.iter().map(|range| range.values.len()).product();
        (0..total).map(|number| self.nth(number)).collect()
    }

    /// Reads `number` as digits, one for each range, the leftmost range's the lowest.
    fn nth(&self, mut number: usize) -> String {
        let mut text = self.prefix.clone();
        for range in &self.ranges {
            text.push_str(&range.values[number % range.values.len()]);
            text.push_str(&range.suffix);
            number /= range.values.len();
        }
        text
    }
}

/// The text before the next range, and what follows its opening brace.
fn split_at_brace(text: &str) -> Result<(&str, Option<&str>), Malformed> {
    let (before, after) = match text.split_once('{') {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    };
    if before.contains('}') || before.contains("...") {
        return Err(Malformed::Stray);
    }
    Ok((before, after))
}

/// The values of `N...M`. Where an end is not decimal both are hexadecimal (for IPv6 addresses).
/// They are padded with zeros to the width of the last when either end is written so.
fn values_of(inside: &str) -> Result<Vec<String>, Malformed> {
    let malformed = || Malformed::Range(format!("{{{inside}}}"));
    let (first, last) = inside.split_once("...").ok_or_else(malformed)?;
    let digits = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    if !digits(first) || !digits(last) {
        return Err(malformed());
    }
    let parse = |radix| {
        let end = |text| u64::from_str_radix(text, radix).ok();
        Some((end(first)?, end(last)?))
    };
    let (radix, (from, to)) = match parse(10) {
        Some(ends) => (10, ends),
        None => (16, parse(16).ok_or_else(malformed)?),
    };
    if from > to {
        return Err(Malformed::Backwards { first: first.to_owned(), last: last.to_owned() });
    }
    if to - from >= DRIVES_MAX as u64 {
        return Err(Malformed::TooMany);
    }
    let padded = (first.starts_with('0') && first.len() > 1) || last.starts_with('0');
    let width = if padded { last.len() } else { 0 };
    Ok((from..=to)
        .map(|value| match radix {
            10 => format!("{value:0width$}"),
            _ => format!("{value:0width$x}"),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(argument: &str) -> Vec<String> {
        Pattern::parse(argument).unwrap().expand()
    }

    #[test]
    fn the_leftmost_range_varies_fastest() {
        assert_eq!(
            expand("http://host{1...2}/d{1...3}"),
            [
                "http://host1/d1",
                "http://host2/d1",
                "http://host1/d2",
                "http://host2/d2",
                "http://host1/d3",
                "http://host2/d3",
            ]
        );
        assert_eq!(expand("{1...2}{3...4}x"), ["13x", "23x", "14x", "24x"]);
    }

    #[test]
    fn zeros_pad_to_the_width_of_the_last() {
        assert_eq!(expand("/d{09...11}"), ["/d09", "/d10", "/d11"]);
        assert_eq!(expand("/d{1...003}"), ["/d001", "/d002", "/d003"]);
        assert_eq!(expand("/d{8...10}"), ["/d8", "/d9", "/d10"]);
        assert_eq!(expand("/d{0...1}"), ["/d0", "/d1"]);
        // A single 0 is a number, not padding.
        assert_eq!(expand("/d{0...10}")[..2], ["/d0", "/d1"]);
    }

    #[test]
    fn hexadecimal_where_an_end_is_not_decimal() {
        assert_eq!(expand("::{1...a}").len(), 10);
        assert_eq!(expand("::{8...b}"), ["::8", "::9", "::a", "::b"]);
        assert_eq!(expand("::{0e...10}").len(), 3);
        assert_eq!(expand("{000e...0010}"), ["000e", "000f", "0010"]);
    }

    #[test]
    fn what_is_not_a_range_is_refused() {
        for argument in [
            "/d{1..4}",
            "/d{1....4}",
            "/d{1...4",
            "/d1...4}",
            "/d1...4",
            "/d{...4}",
            "/d{1...}",
            "/d{4...1}",
            "/d{-1...4}",
            "/d{1...-4}",
            "/d{1...z}",
            "/d{1...A}",
            "/d{a,b}",
            "/d{}",
            "/d{{1...4}}",
            "/d{1...4}}",
            "/d}{1...4}",
            "/d{1...4}/x...y",
            "/d{1...2...3}",
            "/d{1...99999999999999999999999}",
            "/d{1...600000}/e{1...600000}",
        ] {
            assert!(is_pattern(argument), "{argument} is meant as a pattern");
            assert!(Pattern::parse(argument).is_err(), "{argument}");
        }
        assert!(!is_pattern("/data") && !is_pattern("/da{ta"));
    }
}
