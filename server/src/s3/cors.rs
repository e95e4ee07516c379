//! CORS rules of a bucket: which pages of other origins may ask for what. A bucket without rules goes
//! by those of the server (`origins`).

use http::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};

use super::answer;
use super::auth::parse_decimal;
use super::error::{Code, Failure};
use super::xml::{self, Element, Writer, malformed};

const RULES_MAX: usize = 100;
const DOCUMENT_BYTES_MAX: usize = 64 << 10;
const ID_CHARACTERS_MAX: usize = 255;
pub(super) const METHODS: [&str; 5] = ["GET", "HEAD", "PUT", "POST", "DELETE"];
/// What an answer depends on.
const VARIES: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";

/// In their order: the first that fits counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    id: Option<String>,
    /// Patterns in which one star stands for anything; so are those of headers.
    origins: Vec<String>,
    methods: Vec<String>,
    headers: Vec<String>,
    exposed: Vec<String>,
    max_age: Option<u64>,
}

/// What a page asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) origin: &'a str,
    pub(super) method: &'a str,
    /// The headers that a preflight asks for.
    pub(super) headers: Option<&'a str>,
}

impl Rules {
    pub(super) fn parse(document: &[u8]) -> Result<Self, Failure> {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(malformed("CORS rules have up to 64 KiB"));
        }
        let root = xml::parse(document, "CORSConfiguration")?;
        root.allow(&["CORSRule"])?;
        if root.children.is_empty() || root.children.len() > RULES_MAX {
            return Err(malformed("it must hold 1 to 100 rules"));
        }
        Ok(Self(root.children.iter().map(Rule::parse).collect::<Result<_, _>>()?))
    }

    pub(super) fn document(&self) -> String {
        let mut xml = Writer::s3("CORSConfiguration");
        for rule in &self.0 {
            xml.element("CORSRule", |xml| rule.write(xml));
        }
        xml.finish()
    }

    pub(super) fn find(&self, wish: Wish<'_>) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.allows(wish))
    }
}

impl Rule {
    fn parse(rule: &Element) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        for child in &rule.children {
            let value = child.text.trim().to_owned();
            match child.name.as_str() {
                "ID" if parsed.id.is_none() => parsed.id = Some(value),
                "AllowedOrigin" => parsed.origins.push(value),
                "AllowedMethod" => parsed.methods.push(value),
                "AllowedHeader" => parsed.headers.push(value),
                "ExposeHeader" => parsed.exposed.push(value),
                "MaxAgeSeconds" if parsed.max_age.is_none() => {
                    let seconds = parse_decimal(&value);
                    let text = "MaxAgeSeconds must be a whole number";
                    parsed.max_age = Some(seconds.ok_or_else(|| malformed(text))?);
                }
                other => return Err(malformed(&format!("{other} in CORSRule"))),
            }
        }
        parsed.check().map(|()| parsed)
    }

    fn check(&self) -> Result<(), Failure> {
        if self.origins.is_empty() || self.methods.is_empty() {
            return Err(malformed("a rule needs an AllowedOrigin and an AllowedMethod"));
        }
        let invalid = |text: String| Err(Failure::new(Code::InvalidRequest, text));
        if self.id.as_ref().is_some_and(|id| id.chars().count() > ID_CHARACTERS_MAX) {
            return invalid("The ID of a CORS rule has up to 255 characters.".to_owned());
        }
        if let Some(method) = self.methods.iter().find(|name| !METHODS.contains(&name.as_str())) {
            return invalid(format!("The method {method} is none that CORS rules can allow."));
        }
        let stars = |pattern: &&String| pattern.matches('*').count() > 1;
        if let Some(pattern) = self.origins.iter().chain(&self.headers).find(stars) {
            return invalid(format!("{pattern} has more than one star."));
        }
        if let Some(name) = self.exposed.iter().find(|name| name.contains('*')) {
            return invalid(format!("ExposeHeader {name} holds a star."));
        }
        let is_text = |value: &String| http::HeaderValue::from_str(value).is_ok();
        if !self.origins.iter().chain(&self.headers).chain(&self.exposed).all(is_text) {
            return invalid("A CORS rule holds what no header can hold.".to_owned());
        }
        Ok(())
    }

    fn write(&self, xml: &mut Writer) {
        if let Some(id) = &self.id {
            xml.text("ID", id);
        }
        let lists = [
            ("AllowedOrigin", &self.origins),
            ("AllowedMethod", &self.methods),
            ("AllowedHeader", &self.headers),
            ("ExposeHeader", &self.exposed),
        ];
        for (name, values) in lists {
            for value in values {
                xml.text(name, value);
            }
        }
        if let Some(seconds) = self.max_age {
            xml.number("MaxAgeSeconds", seconds);
        }
    }

    fn allows(&self, wish: Wish<'_>) -> bool {
        let headers = wish.headers.unwrap_or_default().split(',').map(str::trim);
        let is_allowed = |name: &str| {
            let name = name.to_ascii_lowercase();
            self.headers.iter().any(|pattern| fits(&pattern.to_ascii_lowercase(), &name))
        };
        self.methods.iter().any(|method| method == wish.method)
            && self.origins.iter().any(|pattern| fits(pattern, wish.origin))
            && headers.filter(|name| !name.is_empty()).all(is_allowed)
    }

    /// Tells the page that this rule lets it in.
    pub(super) fn open<B>(&self, answer: &mut Response<B>, wish: Wish<'_>) {
        let is_anybodys = self.origins.iter().any(|pattern| pattern == "*");
        if is_anybodys {
            answer::set(answer, ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        } else {
            answer::set(answer, ACCESS_CONTROL_ALLOW_ORIGIN, wish.origin);
            answer::set(answer, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        }
        answer::set(answer, ACCESS_CONTROL_ALLOW_METHODS, &self.methods.join(", "));
        if let Some(names) = wish.headers {
            answer::set(answer, ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        if !self.exposed.is_empty() {
            answer::set(answer, ACCESS_CONTROL_EXPOSE_HEADERS, &self.exposed.join(", "));
        }
        if let Some(seconds) = self.max_age {
            answer::set(answer, ACCESS_CONTROL_MAX_AGE, &seconds.to_string());
        }
        answer::set(answer, VARY, VARIES);
    }
}

/// Whether `text` is what `pattern` says, in which one star stands for anything.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => {
            text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(inner: &str) -> Result<Rules, Code> {
        let document = format!("<CORSConfiguration>{inner}</CORSConfiguration>");
        Rules::parse(document.as_bytes()).map_err(|failure| failure.code)
    }

    const GET_ALL: &str = "<CORSRule><AllowedOrigin>*</AllowedOrigin>\
        <AllowedMethod>GET</AllowedMethod></CORSRule>";

    #[test]
    fn rules_are_understood_or_refused() {
        let full = "<CORSRule><ID>a</ID><AllowedOrigin>http://*.a</AllowedOrigin>\
            <AllowedMethod>PUT</AllowedMethod><AllowedMethod>GET</AllowedMethod>\
            <AllowedHeader>x-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader>\
            <MaxAgeSeconds>3000</MaxAgeSeconds></CORSRule>";
        let parsed = rules(&[full, GET_ALL].concat()).expect("rules");
        assert_eq!(Rules::parse(parsed.document().as_bytes()).expect("rules"), parsed);
        let of = |inner: &str| rules(&format!("<CORSRule>{inner}</CORSRule>")).err();
        let origin = "<AllowedOrigin>a</AllowedOrigin>";
        let get = "<AllowedMethod>GET</AllowedMethod>";
        for (inner, code) in [
            (String::new(), Code::MalformedXml),
            (origin.to_owned(), Code::MalformedXml),
            (get.to_owned(), Code::MalformedXml),
            (format!("{origin}{get}<Other/>"), Code::MalformedXml),
            (format!("{origin}{get}<ID>a</ID><ID>b</ID>"), Code::MalformedXml),
            (format!("{origin}{get}<MaxAgeSeconds>soon</MaxAgeSeconds>"), Code::MalformedXml),
            (format!("{origin}{get}<AllowedMethod>PATCH</AllowedMethod>"), Code::InvalidRequest),
            (format!("{origin}{get}<AllowedMethod>get</AllowedMethod>"), Code::InvalidRequest),
            (format!("{get}<AllowedOrigin>*a*</AllowedOrigin>"), Code::InvalidRequest),
            (format!("{origin}{get}<AllowedHeader>*-*</AllowedHeader>"), Code::InvalidRequest),
            (format!("{origin}{get}<ExposeHeader>x-*</ExposeHeader>"), Code::InvalidRequest),
            (format!("{origin}{get}<ID>{}</ID>", "i".repeat(256)), Code::InvalidRequest),
        ] {
            assert_eq!(of(&inner), Some(code), "{inner}");
        }
        assert_eq!(rules(""), Err(Code::MalformedXml));
        assert!(rules(&GET_ALL.repeat(100)).is_ok());
        assert_eq!(rules(&GET_ALL.repeat(101)), Err(Code::MalformedXml));
        assert_eq!(rules(&" ".repeat(64 << 10)), Err(Code::MalformedXml));
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let two = "<CORSRule><ID>a</ID><AllowedOrigin>http://*.a</AllowedOrigin>\
            <AllowedMethod>PUT</AllowedMethod><AllowedHeader>X-Amz-*</AllowedHeader></CORSRule>\
            <CORSRule><ID>b</ID><AllowedOrigin>*</AllowedOrigin><AllowedMethod>PUT</AllowedMethod>\
            <AllowedMethod>GET</AllowedMethod></CORSRule>";
        let rules = rules(two).expect("rules");
        let id = |origin, method, headers| {
            let rule = rules.find(Wish { origin, method, headers })?;
            rule.id.as_deref()
        };
        assert_eq!(id("http://x.a", "PUT", None), Some("a"));
        assert_eq!(id("http://x.a", "PUT", Some("x-amz-date, X-AMZ-ACL")), Some("a"));
        assert_eq!(id("http://x.a", "PUT", Some("range")), None);
        assert_eq!(id("http://x.a", "GET", None), Some("b"));
        assert_eq!(id("http://b", "PUT", Some("")), Some("b"));
        assert_eq!(id("http://b", "DELETE", None), None);
        assert!(!fits("ab*ba", "aba"), "the star stands for none of the ends");
    }
}
