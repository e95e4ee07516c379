//! Reads single elements out of S3's small, flat answers. Not a parser: it is used on answers of
//! the server under test only, and what it does not find fails the check that asked.

/// The texts of all elements of this name, in order, entities resolved.
pub(crate) fn text_of(body: &[u8], name: &str) -> Vec<String> {
    let body = String::from_utf8_lossy(body);
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut found = Vec::new();
    let mut rest: &str = &body;
    while let Some(start) = rest.find(&open) {
        rest = &rest[start + open.len()..];
        let Some(end) = rest.find(&close) else { break };
        found.push(unescape(&rest[..end]));
        rest = &rest[end + close.len()..];
    }
    found
}

fn unescape(text: &str) -> String {
    // `&amp;` last, so that an escaped ampersand starts no second entity.
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&apos;", "'")];
    let mut out = text.to_owned();
    for (entity, plain) in named.into_iter().chain([("&#39;", "'"), ("&amp;", "&")]) {
        out = out.replace(entity, plain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_element_of_a_name() {
        let body = b"<R><Key>a&amp;lt;</Key><Size>1</Size><Key>b</Key></R>";
        assert_eq!(text_of(body, "Key"), ["a&lt;", "b"]);
        assert_eq!(text_of(body, "Size"), ["1"]);
        assert!(text_of(body, "Token").is_empty());
    }
}
