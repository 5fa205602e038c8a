//! YAML text, split into documents and read into trees whose nodes know where they stand.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// Nodes of a document at most; a workload takes some thirty.
const NODES: usize = 50_000;

/// Levels of nesting at most; published resources take fewer than ten.
const DEPTH: usize = 32;

/// One document of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Document<'a> {
    pub(super) text: &'a str,
    /// Lines of the file before it.
    pub(super) lines_before: usize,
}

/// A place in a file; both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A field's name and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

/// A document that is no YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) place: Option<Place>,
    pub(super) reason: String,
}

/// Splits at the markers `---` and `...`. At the start of a line they always are markers, in quoted
/// text and block text too (YAML 1.2, production 205), so a broken document cannot hide the next one.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut lines_before = 0;
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line, "---") || is_marker(line, "...") {
            documents.push(Document {
                text: &text[start..at],
                lines_before,
            });
            // What follows `--- ` on its line belongs to the document; the marker may stay with it.
            let ends = line.starts_with("...");
            start = if ends { at + line.len() } else { at };
            lines_before = number + usize::from(ends);
        }
        at += line.len();
    }
    documents.push(Document {
        text: &text[start..],
        lines_before,
    });
    documents.retain(|document| !document.is_empty());
    documents
}

impl Document<'_> {
    /// The tree, or why there is none.
    pub(super) fn read(&self) -> Result<Node, SyntaxError> {
        let options = serde_saphyr::options! {
            with_snippet: false,
            budget: serde_saphyr::budget! {
                max_depth: DEPTH,
                max_nodes: NODES,
                max_events: NODES * 2,
                max_documents: 1,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: NODES,
                max_replay_stack_depth: DEPTH,
            },
        };
        let read: Result<Spanned<Value>, _> =
            serde_saphyr::from_str_with_options(self.text, options);
        let mut node = read.map(Node::from).map_err(|error| {
            let location = error.location().map(place);
            SyntaxError {
                place: location.map(|place| place.below(self.lines_before)),
                reason: reason(&error, location),
            }
        })?;
        node.shift(self.lines_before);
        Ok(node)
    }

    /// Nothing in it but blank lines, comments, directives and its own marker.
    fn is_empty(&self) -> bool {
        self.text.lines().all(|line| {
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            line.is_empty() || line.starts_with(['#', '%'])
        })
    }
}

impl Node {
    /// What the value of a field is; `None` for what is no map or has no such field.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
        let Value::Map(fields) = &self.value else {
            return None;
        };
        fields
            .iter()
            .find(|(key, _)| key.name == name)
            .map(|(_, value)| value)
    }

    /// The text of a field.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.field(name)?.as_text()
    }

    /// Its text; `None` for what is none.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// How many items it has; none if it is no list.
    pub(super) fn len(&self) -> usize {
        match &self.value {
            Value::List(items) => items.len(),
            _ => 0,
        }
    }

    /// The node at a path such as `spec.ports[0].port`, or the nearest one above it.
    pub(super) fn nearest(&self, path: &str) -> &Node {
        let mut node = self;
        for segment in path.split(['.', '[']).filter(|segment| !segment.is_empty()) {
            let next = match &node.value {
                Value::List(items) => segment
                    .trim_end_matches(']')
                    .parse()
                    .ok()
                    .and_then(|index: usize| items.get(index)),
                _ => node.field(segment),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    fn shift(&mut self, lines: usize) {
        self.place = self.place.below(lines);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(fields) => {
                for (key, value) in fields {
                    key.place = key.place.below(lines);
                    value.shift(lines);
                }
            }
            _ => {}
        }
    }
}

impl Place {
    fn below(self, lines: usize) -> Self {
        Self {
            line: self.line + lines,
            ..self
        }
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self {
            place: place(spanned.referenced),
            value: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Integer)
            .map_err(|_| E::custom(format!("{value} is too large a number")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Value>>()? {
            items.push(item.into());
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let key = Key {
                place: place(key.referenced),
                name: key.value,
            };
            let value = access.next_value::<Spanned<Value>>()?;
            fields.push((key, value.into()));
        }
        Ok(Value::Map(fields))
    }
}

/// The place is told apart from the reason, and counts from the start of the file.
fn reason(error: &serde_saphyr::Error, place: Option<Place>) -> String {
    if let serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } = error {
        return format!("{key:?} is there twice: remove one");
    }
    let text = error.to_string();
    let suffix = place.map(|place| format!(" at line {}, column {}", place.line, place.column));
    match suffix.and_then(|suffix| text.strip_suffix(&suffix)) {
        Some(reason) => reason.to_owned(),
        None => text,
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn place(location: Location) -> Place {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
    Place {
        line: number(location.line()),
        column: number(location.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(&str, usize)> {
        split(text)
            .iter()
            .map(|document| (document.text, document.lines_before))
            .collect()
    }

    #[test]
    fn documents_are_split_at_markers_only() {
        assert_eq!(
            texts("a: 1\n---\nb: 2\n"),
            [("a: 1\n", 0), ("---\nb: 2\n", 1)]
        );
        assert_eq!(
            texts("---\na: 1\n...\n---\nb: 2"),
            [("---\na: 1\n", 0), ("---\nb: 2", 3)]
        );
        assert_eq!(
            texts("a: '\n---\n'\n").len(),
            2,
            "quoted text hides no marker"
        );
        assert_eq!(texts("a: ---\n ---\n").len(), 1);
        assert_eq!(texts("# nothing\n---\n\n---\n# here\n"), []);
        assert_eq!(texts("%YAML 1.2\n---\na: 1\n"), [("---\na: 1\n", 1)]);
        assert_eq!(texts("a: 1\r\n---\r\nb: 2\r\n").len(), 2);
        assert_eq!(texts(""), []);
    }

    #[test]
    fn nodes_know_where_they_stand_in_the_file() {
        let text = "a: 1\n---\nb:\n  - c\n  - {d: null}\n";
        let node = split(text)[1].read().unwrap();
        let place = |path| {
            (
                node.nearest(path).place.line,
                node.nearest(path).place.column,
            )
        };
        assert_eq!(place("b[0]"), (4, 5));
        assert_eq!(place("b[1].d"), (5, 9));
        assert_eq!(place("b[1].e"), (5, 5), "the nearest one above");
    }

    #[test]
    fn what_is_no_yaml_says_where() {
        let error = split("a: 1\n---\nb: [x\n")[1].read().unwrap_err();
        assert_eq!(error.place.unwrap().line, 3);
        assert!(!error.reason.contains("line"), "{}", error.reason);
    }

    #[test]
    fn bombs_are_refused() {
        let deep = "[".repeat(100_000);
        let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
        let wide = "- a\n".repeat(100_000);
        for bomb in [&deep, laughs, &wide] {
            assert!(split(bomb)[0].read().is_err());
        }
    }
}
