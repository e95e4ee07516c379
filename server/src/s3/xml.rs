//! XML in and out. Out: an own writer that escapes every value. In: a small tree, read with
//! limits; DTDs, entities, processing instructions and CDATA tricks are refused, not interpreted.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::error::{Code, Failure};

pub(super) const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// Longest document that a request may carry, in bytes.
pub(super) const DOCUMENT_BYTES_MAX: usize = 2 << 20;
const DEPTH_MAX: usize = 8;
/// Ten thousand parts with a number, an ETag and a checksum each, and room.
const ELEMENTS_MAX: usize = 64 << 10;

/// Writes one document.
pub(super) struct Writer {
    out: String,
    root: &'static str,
}

impl Writer {
    pub(super) fn document(root: &'static str, namespace: Option<&str>) -> Self {
        let mut out = String::with_capacity(512);
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<");
        out.push_str(root);
        if let Some(namespace) = namespace {
            out.push_str(" xmlns=\"");
            out.push_str(namespace);
            out.push('"');
        }
        out.push('>');
        Self { out, root }
    }

    /// A document of S3's own namespace.
    pub(super) fn s3(root: &'static str) -> Self {
        Self::document(root, Some(NAMESPACE))
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.open(name);
        escape_into(value, &mut self.out);
        self.close(name);
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.text(name, &value.to_string());
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) {
        self.text(name, if value { "true" } else { "false" });
    }

    pub(super) fn element(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.open(name);
        content(self);
        self.close(name);
    }

    /// Opens an element with attributes, which the caller knows to need no escaping.
    pub(super) fn element_with(
        &mut self,
        name: &str,
        attributes: &'static str,
        content: impl FnOnce(&mut Self),
    ) {
        self.out.push('<');
        self.out.push_str(name);
        self.out.push(' ');
        self.out.push_str(attributes);
        self.out.push('>');
        content(self);
        self.close(name);
    }

    /// Text of the element that is open.
    pub(super) fn bare(&mut self, value: &str) {
        escape_into(value, &mut self.out);
    }

    pub(super) fn finish(mut self) -> String {
        self.close(self.root);
        self.out
    }

    fn open(&mut self, name: &str) {
        self.out.push('<');
        self.out.push_str(name);
        self.out.push('>');
    }
    fn close(&mut self, name: &str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }
}

fn escape_into(text: &str, out: &mut String) {
    let mut plain_from = 0;
    for (at, character) in text.char_indices() {
        let reference = match character {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\'' => "&apos;",
            // Control characters are no XML 1.0, but keys may hold them, and this is how S3 shows
            // them; a raw line end would be normalised by the reader.
            '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => "",
            _ => continue,
        };
        out.push_str(&text[plain_from..at]);
        plain_from = at + character.len_utf8();
        if reference.is_empty() {
            out.push_str(&format!("&#x{:X};", u32::from(character)));
        } else {
            out.push_str(reference);
        }
    }
    out.push_str(&text[plain_from..]);
}

/// An element as it was read: local name, text, children. Attributes are passed over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }
    pub(super) fn child_text(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str())
    }
    /// Fails unless every child is one of `known`, and none that `known` marks single is repeated.
    pub(super) fn allow(&self, known: &[&str]) -> Result<(), Failure> {
        match self.children.iter().find(|child| !known.contains(&child.name.as_str())) {
            Some(child) => Err(malformed(&format!("{} in {}", child.name, self.name))),
            None => Ok(()),
        }
    }
}

/// The root of `document`, which must be named `root`.
pub(super) fn parse(document: &[u8], root: &str) -> Result<Element, Failure> {
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(Failure::new(Code::MaxMessageLengthExceeded, "The document is too long."));
    }
    let text = std::str::from_utf8(document).map_err(|_| malformed("it is not UTF-8"))?;
    // The reader lets it pass, though XML has no such character; neither has any name of a key.
    if text.contains('\0') {
        return Err(malformed("it holds a NUL"));
    }
    let element = Tree::default().read(text)?;
    if element.name == root { Ok(element) } else { Err(malformed(&element.name)) }
}

pub(super) fn malformed(what: &str) -> Failure {
    Failure::new(Code::MalformedXml, format!("The XML of the request is not valid: {what}."))
}

/// The elements that are open, outermost first, below a root that holds the document element.
#[derive(Default)]
struct Tree {
    open: Vec<Element>,
    elements: usize,
}

impl Tree {
    fn read(mut self, text: &str) -> Result<Element, Failure> {
        let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
        let mut root = None;
        loop {
            let event = reader.read_event().map_err(|error| malformed(&error.to_string()))?;
            let ended = match event {
                Event::Start(start) => {
                    self.start(start.local_name().as_ref(), root.is_some())?;
                    None
                }
                Event::Empty(start) => {
                    self.start(start.local_name().as_ref(), root.is_some())?;
                    self.open.pop()
                }
                Event::End(_) => self.open.pop(),
                Event::Text(text) => {
                    self.append(&text.xml10_content())?;
                    None
                }
                Event::CData(text) => {
                    self.append(&text.xml10_content())?;
                    None
                }
                Event::GeneralRef(reference) => {
                    self.append(&resolve(&reference)?)?;
                    None
                }
                Event::Decl(_) | Event::Comment(_) => None,
                Event::PI(_) | Event::DocType(_) => {
                    return Err(malformed("it holds a DTD or an instruction"));
                }
                Event::Eof => break,
            };
            if let Some(element) = ended {
                match self.open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => root = Some(element),
                }
            }
        }
        if self.open.is_empty() {
            root.ok_or_else(|| malformed("it is empty"))
        } else {
            Err(malformed("it ends early"))
        }
    }

    fn start(&mut self, name: &str, after_root: bool) -> Result<(), Failure> {
        self.elements += 1;
        if self.open.len() >= DEPTH_MAX || self.elements > ELEMENTS_MAX || after_root {
            return Err(malformed("it holds too many elements"));
        }
        self.open.push(Element { name: name.to_owned(), ..Element::default() });
        Ok(())
    }

    fn append(&mut self, text: &str) -> Result<(), Failure> {
        match self.open.last_mut() {
            Some(element) => {
                element.text.push_str(text);
                Ok(())
            }
            None if text.trim().is_empty() => Ok(()),
            None => Err(malformed("it holds text outside of its root")),
        }
    }
}

fn resolve(reference: &quick_xml::events::BytesRef<'_>) -> Result<String, Failure> {
    let wrong = || malformed("it holds an unknown reference");
    if let Some(character) = reference.resolve_char_ref().map_err(|_| wrong())? {
        return Ok(character.to_string());
    }
    let character = match &**reference {
        "lt" => "<",
        "gt" => ">",
        "amp" => "&",
        "quot" => "\"",
        "apos" => "'",
        _ => return Err(wrong()),
    };
    Ok(character.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let value = "a<b>&\"c'\u{1}\t\r\n]]>é\u{7f}";
        let mut xml = Writer::s3("Root");
        xml.element("Outer", |xml| xml.text("Inner", value));
        let document = xml.finish();
        assert!(document.contains("&#x1;") && !document.contains('\u{1}'), "{document}");
        let root = parse(document.as_bytes(), "Root").expect("parses");
        let outer = root.child("Outer").expect("is there");
        assert_eq!(outer.child_text("Inner"), Some(value));
        assert!(root.allow(&["Outer"]).is_ok());
        assert!(root.allow(&["Other"]).is_err());
    }

    #[test]
    fn a_nul_is_refused_however_it_is_written() {
        for document in [&b"<R>a\0b</R>"[..], b"<R>a&#0;b</R>", b"<R>a&#x0;b</R>", b"<R a='\0'/>"] {
            assert!(parse(document, "R").is_err(), "{}", document.escape_ascii());
        }
    }

    #[test]
    fn prefixes_and_empty_elements_are_understood() {
        let root = parse(b"<x:R xmlns:x='u'><x:A/><!-- c --><B>1&#x32;&amp;</B></x:R>", "R");
        let root = root.expect("parses");
        assert_eq!(root.child_text("A"), Some(""));
        assert_eq!(root.child_text("B"), Some("12&"));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = "<R>".repeat(9) + &"</R>".repeat(9);
        let many = format!("<R>{}</R>", "<a/>".repeat(ELEMENTS_MAX));
        let long = format!("<R>{}</R>", " ".repeat(DOCUMENT_BYTES_MAX));
        let documents = [
            "",
            "text",
            "<R>",
            "<R></S>",
            "<S/>",
            "<R/><R/>",
            "<R/>text",
            "<!DOCTYPE R [<!ENTITY e \"x\">]><R>&e;</R>",
            "<R>&e;</R>",
            "<R>&#0;</R>",
            "<?php x?><R/>",
            &deep,
            &many,
            &long,
        ];
        for document in documents {
            let start = &document[..document.len().min(40)];
            assert!(parse(document.as_bytes(), "R").is_err(), "{start}");
        }
        assert!(parse(b"<R>\xff</R>", "R").is_err());
    }
}
