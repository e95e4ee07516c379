//! Parity of the storage classes, from `EC:n` or by default.
//!
//! A class states parity for objects written from now on; each version keeps the parity that it
//! was written with.

use basalt_engine::units::SET_DRIVES_MAX;

use crate::environment::Variable;
use crate::object::store::ClassParity;
use crate::refusal::Refusal;

/// Default parity of REDUCED_REDUNDANCY, where STANDARD leaves room for it.
const REDUCED_DEFAULT: u8 = 2;

/// What the operator asked for; `None` asks for the default.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StorageClasses {
    pub standard: Option<u8>,
    pub reduced_redundancy: Option<u8>,
}

impl StorageClasses {
    pub fn parse(
        standard: Option<Variable<'_>>,
        reduced: Option<Variable<'_>>,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            standard: standard.map(|class| parse(&class)).transpose()?,
            reduced_redundancy: reduced.map(|class| parse(&class)).transpose()?,
        })
    }

    /// The parity of both classes on a set of `drives`.
    pub fn on_set(&self, drives: usize) -> Result<ClassParity, Refusal> {
        let standard = self.standard.unwrap_or_else(|| default_parity(drives));
        let half = u8::try_from(drives / 2).expect("a set has at most sixteen drives");
        if standard > half {
            return Err(too_much("STANDARD", standard, half, format!("half of {drives} drives")));
        }
        let reduced = self.reduced_redundancy.unwrap_or_else(|| default_reduced(standard));
        if reduced > standard {
            let bound = "the parity of STANDARD".to_owned();
            return Err(too_much("REDUCED_REDUNDANCY", reduced, standard, bound));
        }
        Ok(ClassParity { standard, reduced_redundancy: reduced })
    }
}

fn default_parity(drives: usize) -> u8 {
    match drives {
        1 => 0,
        2..=3 => 1,
        4..=5 => 2,
        6..=7 => 3,
        8..=SET_DRIVES_MAX => 4,
        _ => panic!("a set has 1 to 16 drives, not {drives}"),
    }
}

/// Less than STANDARD where STANDARD is more than 1, and never more.
fn default_reduced(standard: u8) -> u8 {
    REDUCED_DEFAULT.min(standard.saturating_sub(1)).max(1).min(standard)
}

fn too_much(class: &str, parity: u8, bound: u8, reason: String) -> Refusal {
    Refusal::usage(
        format!("storage class {class} cannot have parity {parity}"),
        format!("its parity is at most {bound}: {reason}"),
        format!("ask for EC:{bound} or less, or give each set more drives"),
    )
}

fn parse(class: &Variable<'_>) -> Result<u8, Refusal> {
    let refused = |cause: String| {
        let what = format!("{}={} is not a storage class", class.name, class.value);
        Refusal::usage(what, cause, "write the number of parity shards as EC:4")
    };
    let mut sections = class.value.split(':');
    let scheme = sections.next().unwrap_or_default();
    let Some(parity) = sections.next() else {
        return Err(refused("it has one section where scheme and parity are needed".into()));
    };
    if sections.next().is_some() {
        return Err(refused("it has more than two sections".into()));
    }
    if scheme != "EC" {
        return Err(refused(format!("its scheme is `{scheme}`; the only scheme is EC")));
    }
    parity.parse().map_err(|_| refused(format!("its parity `{parity}` is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(standard: Option<u8>, reduced_redundancy: Option<u8>) -> StorageClasses {
        StorageClasses { standard, reduced_redundancy }
    }

    #[test]
    fn defaults_by_set_size() {
        let expected = [
            (1, 0, 0),
            (2, 1, 1),
            (3, 1, 1),
            (4, 2, 1),
            (5, 2, 1),
            (6, 3, 2),
            (7, 3, 2),
            (8, 4, 2),
            (12, 4, 2),
            (16, 4, 2),
        ];
        for (drives, standard, reduced_redundancy) in expected {
            let parity = StorageClasses::default().on_set(drives).unwrap();
            assert_eq!(parity, ClassParity { standard, reduced_redundancy }, "{drives} drives");
        }
    }

    #[test]
    fn reduced_follows_standard() {
        let reduced =
            |standard| classes(Some(standard), None).on_set(16).unwrap().reduced_redundancy;
        assert_eq!([0, 1, 2, 3, 4, 8].map(reduced), [0, 1, 1, 2, 2, 2]);
        let parity = classes(None, Some(4)).on_set(16).unwrap();
        assert_eq!(parity, ClassParity { standard: 4, reduced_redundancy: 4 });
    }

    #[test]
    fn bounds() {
        assert_eq!(classes(Some(8), None).on_set(16).unwrap().standard, 8);
        assert!(classes(Some(9), None).on_set(16).is_err());
        assert!(classes(Some(1), None).on_set(1).is_err());
        assert!(classes(Some(3), None).on_set(5).is_err());
        assert!(classes(None, Some(5)).on_set(16).is_err());
        assert!(classes(Some(2), Some(3)).on_set(16).is_err());
        assert_eq!(classes(Some(0), None).on_set(4).unwrap().standard, 0);
    }

    #[test]
    fn text() {
        let parse = |value| parse(&Variable { name: "MINIO_STORAGE_CLASS_RRS".into(), value });
        assert_eq!(parse("EC:4").unwrap(), 4);
        for (value, cause) in [
            ("EC", "one section"),
            ("EC:4:2", "more than two"),
            ("RS:4", "`RS`"),
            ("ec:4", "`ec`"),
            ("EC:four", "`four`"),
            ("EC:-1", "`-1`"),
            ("EC:300", "`300`"),
            ("EC:", "``"),
        ] {
            let refused = parse(value).unwrap_err();
            assert!(refused.cause.contains(cause), "{value}: {refused}");
        }
    }
}
