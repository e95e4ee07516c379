//! Texts with wildcards and variables, as they stand in resources and in the values of conditions.
//!
//! What a variable stands for is taken literally: a star in a user's name is a star. Matching takes
//! time in proportion to the product of the lengths at most, whatever the pattern.

use super::key::{Facts, Key, Kind};

/// A text of a policy, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pattern {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Character(char),
    /// `?`: one character.
    One,
    /// `*`: any number of them.
    Any,
    Variable {
        key: Key,
        default: Option<String>,
    },
}

/// What has a meaning of its own in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) wildcards: bool,
    pub(super) variables: bool,
}

/// A pattern without variables left.
enum Step {
    Character(char),
    One,
    Any,
}

impl Pattern {
    pub(super) fn parse(text: &str, syntax: Syntax) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            if syntax.variables
                && let Some(inside) = rest.strip_prefix("${")
            {
                let (variable, after) = inside
                    .split_once('}')
                    .ok_or_else(|| format!("a variable in {text:?} is not closed"))?;
                pieces.push(Piece::variable(variable)?);
                rest = after;
                continue;
            }
            pieces.push(match character {
                '*' if syntax.wildcards => Piece::Any,
                '?' if syntax.wildcards => Piece::One,
                other => Piece::Character(other),
            });
            rest = &rest[character.len_utf8()..];
        }
        Ok(Self { pieces })
    }

    /// The one text that this matches, if there is one.
    pub(super) fn is_fixed(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Character(_)))
    }

    pub(super) fn has_variable(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Variable { .. }))
    }

    pub(super) fn uses_existing_tags(&self) -> bool {
        let is_tag =
            |piece: &Piece| matches!(piece, Piece::Variable { key: Key::ExistingObjectTag(_), .. });
        self.pieces.iter().any(is_tag)
    }

    /// Whether a slash is written in it, or could be matched by one of its wildcards.
    pub(super) fn may_hold_slash(&self) -> bool {
        let may = |piece: &Piece| matches!(piece, Piece::Character('/') | Piece::Any | Piece::One);
        self.pieces.iter().any(may)
    }

    /// What stands before the first slash that is written in it.
    pub(super) fn before_slash(&self) -> Self {
        let is_slash = |piece: &Piece| *piece == Piece::Character('/');
        let end = self.pieces.iter().position(is_slash).unwrap_or(self.pieces.len());
        Self { pieces: self.pieces[..end].to_vec() }
    }

    /// The six fields of an ARN; the last holds every further colon.
    pub(super) fn arn_fields(&self) -> Option<[Self; 6]> {
        let mut fields: [Self; 6] = Default::default();
        let mut field = 0;
        for piece in &self.pieces {
            if field < 5 && *piece == Piece::Character(':') {
                field += 1;
            } else {
                fields[field].pieces.push(piece.clone());
            }
        }
        (field == 5).then_some(fields)
    }

    /// Whether `text` is what this describes. A variable without a value matches nothing.
    pub(super) fn matches(&self, text: &str, facts: &Facts) -> bool {
        self.steps(facts).is_some_and(|steps| matches(&steps, text))
    }

    /// As [`Self::matches`], without regard to case.
    pub(super) fn matches_folded(&self, text: &str, facts: &Facts) -> bool {
        let Some(steps) = self.steps(facts) else { return false };
        let mut folded = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::Character(one) => folded.extend(one.to_lowercase().map(Step::Character)),
                wildcard => folded.push(wildcard),
            }
        }
        matches(&folded, &text.chars().flat_map(char::to_lowercase).collect::<String>())
    }

    fn steps(&self, facts: &Facts) -> Option<Vec<Step>> {
        let mut steps = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            match piece {
                Piece::Character(one) => steps.push(Step::Character(*one)),
                Piece::One => steps.push(Step::One),
                Piece::Any => steps.push(Step::Any),
                Piece::Variable { key, default } => {
                    let value = facts.text_of(key).or_else(|| default.clone())?;
                    steps.extend(value.chars().map(Step::Character));
                }
            }
        }
        Some(steps)
    }
}

impl Piece {
    /// What stands between `${` and `}`.
    fn variable(inside: &str) -> Result<Self, String> {
        if let "*" | "?" | "$" = inside {
            return Ok(Self::Character(inside.chars().next().expect("one")));
        }
        let (name, default) = match inside.split_once(',') {
            None => (inside, None),
            Some((name, default)) => {
                let quoted = default.trim().strip_prefix('\'').and_then(|it| it.strip_suffix('\''));
                let default = quoted.filter(|text| !text.contains('\''));
                let default =
                    default.ok_or_else(|| format!("the default of ${{{inside}}} is not quoted"))?;
                (name, Some(default.to_owned()))
            }
        };
        match Key::parse(name.trim()) {
            Some(key) if key.kind() != Kind::Texts => Ok(Self::Variable { key, default }),
            Some(_) => Err(format!("the variable ${{{inside}}} has several values")),
            None => Err(format!("the variable ${{{inside}}} is unknown")),
        }
    }
}

/// Goes back to the last star only: what an earlier one could take, the last one can as well.
fn matches(steps: &[Step], text: &str) -> bool {
    let mut rest = text.chars();
    let mut at = 0;
    // Where the last star stands, and what of the text it has not taken yet.
    let mut star = None;
    loop {
        let before = rest.clone();
        let next = rest.next();
        let fits = match (steps.get(at), next) {
            (None, None) => return true,
            (Some(Step::Any), _) => {
                star = Some((at, before.clone()));
                at += 1;
                rest = before;
                continue;
            }
            (Some(Step::One), Some(_)) => true,
            (Some(Step::Character(wanted)), Some(there)) => *wanted == there,
            _ => false,
        };
        if fits {
            at += 1;
            continue;
        }
        let Some((star_at, taken)) = &mut star else { return false };
        if taken.next().is_none() {
            return false;
        }
        rest = taken.clone();
        at = *star_at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::key::Name;

    const FULL: Syntax = Syntax { wildcards: true, variables: true };

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text, FULL).expect("parses")
    }

    #[test]
    fn wildcards_match_as_they_should() {
        let facts = Facts::default();
        let table = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("**", "", true),
            ("?", "", false),
            ("?", "é", true),
            ("?", "ab", false),
            ("a*", "a", true),
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("*ab", "aab", true),
            ("*a*b", "xaxxb", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a?c", "abc", true),
            ("home/*", "home", false),
            ("home/*", "home/", true),
            ("home/*", "homes/x", false),
            ("A", "a", false),
            ("[a]", "[a]", true),
            ("a.c", "abc", false),
        ];
        for (text, value, expected) in table {
            assert_eq!(pattern(text).matches(value, &facts), expected, "{text} {value}");
        }
        assert!(pattern("É*").matches_folded("éX", &facts));
        assert!(!pattern("É*").matches_folded("eX", &facts));
    }

    /// What takes exponential time elsewhere.
    #[test]
    fn no_pattern_takes_long() {
        let text = "a".repeat(5_000);
        let hostile = format!("{}b", "a*".repeat(2_000));
        assert!(!pattern(&hostile).matches(&text, &Facts::default()));
    }

    /// A known class: a user named `*` was given every other user's folder.
    #[test]
    fn what_a_variable_stands_for_is_no_pattern() {
        let mut facts = Facts::default();
        let home = pattern("home/${aws:username}/*");
        assert!(!home.matches("home//x", &facts), "without a value nothing matches");
        for (user, key, expected) in [
            ("alice", "home/alice/x", true),
            ("alice", "home/alice2/x", false),
            ("*", "home/alice/x", false),
            ("*", "home/*/x", true),
            ("?", "home/a/x", false),
            ("${aws:userid}", "home/x/x", false),
        ] {
            facts.set_text(Name::UserName, user);
            assert_eq!(home.matches(key, &facts), expected, "{user} {key}");
        }
    }

    #[test]
    fn variables_have_defaults_and_stars_can_be_written() {
        let facts = Facts::default();
        assert!(pattern("a/${aws:username, 'nobody'}").matches("a/nobody", &facts));
        assert!(pattern("a/${aws:username,''}").matches("a/", &facts));
        assert!(pattern("${*}${?}${$}{}").matches("*?${}", &facts));
        assert!(!pattern("${*}").matches("x", &facts));
        let plain = Syntax { wildcards: true, variables: false };
        let old = Pattern::parse("${aws:username}", plain).expect("parses");
        assert!(old.matches("${aws:username}", &facts));
        for wrong in ["${", "${}", "${aws:nobody}", "${aws:username, x}", "${a", "${aws:username,}"]
        {
            assert!(Pattern::parse(wrong, FULL).is_err(), "{wrong}");
        }
        assert!(Pattern::parse("${s3:RequestObjectTagKeys}", FULL).is_err());
    }

    #[test]
    fn an_arn_has_six_fields() {
        let fields = pattern("arn:aws:iam::${aws:userid}:user/a:b").arn_fields().expect("six");
        assert!(fields[5].matches("user/a:b", &Facts::default()));
        assert!(fields[4].has_variable());
        assert_eq!(pattern("arn:aws:iam:x").arn_fields(), None);
    }
}
