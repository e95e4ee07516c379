//! JSON as policies are written in it: read strictly. A name that occurs twice in an object is an
//! error, because two readers of such a document may believe two different things.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    Null,
    Flag(bool),
    Integer(i64),
    Text(String),
    List(Vec<Json>),
    /// Names in their order; none occurs twice.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The document, or what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|error| format!("it is not valid JSON: {error}"))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with whole numbers only")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Flag(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        i64::try_from(value).map(Json::Integer).map_err(|_| E::custom("a number is too large"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object: Vec<(String, Json)> = Vec::new();
        while let Some((name, value)) = members.next_entry::<String, Json>()? {
            if object.iter().any(|(there, _)| *there == name) {
                return Err(A::Error::custom(format!("{name:?} occurs twice in one object")));
            }
            object.push((name, value));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_as_it_stands() {
        let text = |text: &str| Json::Text(text.to_owned());
        let parsed = Json::parse(br#"{"a": ["x", 1, true, null], "A": {}}"#);
        let list = vec![text("x"), Json::Integer(1), Json::Flag(true), Json::Null];
        let object =
            vec![("a".to_owned(), Json::List(list)), ("A".to_owned(), Json::Object(Vec::new()))];
        assert_eq!(parsed, Ok(Json::Object(object)));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": 1, "\u0061": 2}"#,
            r#"[{"x": {"y": 1, "y": 2}}]"#,
            "1.5",
            "1e2",
            "18446744073709551615",
            "{} {}",
            "{\"a\": 1,}",
            "",
            "\"\u{1}\"",
            "[",
        ] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(Json::parse(&deep).is_err(), "depth is limited");
        assert!(Json::parse(b"\"\xff\"").is_err(), "not UTF-8");
    }
}
