//! Reads typed values from trees: errors say where and which field, and fields nobody asked for are
//! noted.

use std::{cell::RefCell, fmt};

use serde::{
    de::{
        self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, Visitor,
    },
    forward_to_deserialize_any,
};

use super::document::{Key, Node, Place, Value};

/// A field's path, where it stands, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) place: Option<Place>,
    pub(super) field: String,
    pub(super) reason: String,
}

/// The value, and a fault for each field that it has no place for.
pub(super) fn read<T: DeserializeOwned>(node: &Node) -> Result<(T, Vec<Fault>), Fault> {
    let unknown = RefCell::default();
    let tree = Tree {
        node,
        path: &Path::Root,
        unknown: &unknown,
    };
    let value = T::deserialize(tree).map_err(|fault| fault.at(node.place, &Path::Root))?;
    Ok((value, unknown.into_inner()))
}

#[derive(Clone, Copy)]
struct Tree<'a> {
    node: &'a Node,
    path: &'a Path<'a>,
    unknown: &'a RefCell<Vec<Fault>>,
}

enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl<'de> Tree<'_> {
    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_str(value),
            Value::List(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
                tree: self,
            }),
            Value::Map(fields) => visitor.visit_map(Fields {
                fields: fields.iter(),
                current: None,
                tree: self,
            }),
        }
    }

    fn located<T>(self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| fault.at(self.node.place, self.path))
    }
}

impl<'de> de::Deserializer<'de> for Tree<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = self.visit(visitor);
        self.located(result)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let unexpected = match &self.node.value {
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Integer(value) => Unexpected::Signed(*value),
            Value::Float(value) => Unexpected::Float(*value),
            _ => return self.deserialize_any(visitor),
        };
        let reason = format!("{unexpected} where text is expected: put it in quotes");
        self.located(Err(de::Error::custom(reason)))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let result = match &self.node.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => self.visit(visitor),
        };
        self.located(result)
    }

    /// Only fields that the type does not have are skipped, so this is where those show.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.unknown.borrow_mut().push(Fault {
            place: None,
            field: self.path.to_string(),
            reason: "unknown field".to_owned(),
        });
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    tree: Tree<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let path = &Path::Item(self.tree.path, index);
        let tree = Tree {
            node,
            path,
            ..self.tree
        };
        tree.located(seed.deserialize(tree)).map(Some)
    }
}

struct Fields<'a> {
    fields: std::slice::Iter<'a, (Key, Node)>,
    current: Option<&'a (Key, Node)>,
    tree: Tree<'a>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.current = self.fields.next();
        let Some((key, _)) = self.current else {
            return Ok(None);
        };
        let path = Path::Field(self.tree.path, &key.name);
        seed.deserialize(key.name.as_str().into_deserializer())
            .map(Some)
            .map_err(|fault: Fault| fault.at(key.place, &path))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some((key, node)) = self.current else {
            return Err(de::Error::custom("a value was asked for before its name"));
        };
        let path = &Path::Field(self.tree.path, &key.name);
        let tree = Tree {
            node,
            path,
            ..self.tree
        };
        let before = self.tree.unknown.borrow().len();
        let value = tree.located(seed.deserialize(tree));
        // A field that was skipped stands where its name does.
        if let Some(fault) = self.tree.unknown.borrow_mut().get_mut(before) {
            fault.place.get_or_insert(key.place);
        }
        value
    }
}

impl Fault {
    /// Keeps what is known already: the innermost place is the right one.
    fn at(mut self, place: Place, path: &Path<'_>) -> Self {
        if self.place.is_none() {
            self.place = Some(place);
            self.field = path.to_string();
        }
        self
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self {
            place: None,
            field: String::new(),
            reason: reason.to_string(),
        }
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(above, name) => write!(f, "{above}.{name}"),
            Self::Item(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::manifests::document::split;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Top {
        name: String,
        #[serde(default)]
        items: Vec<Item>,
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Item {
        port: u16,
        on: Option<bool>,
    }

    fn top(text: &str) -> Result<(Top, Vec<Fault>), Fault> {
        read(&split(text)[0].read().unwrap())
    }

    fn fault(text: &str) -> (String, usize, usize, String) {
        let fault = top(text).unwrap_err();
        let place = fault.place.unwrap();
        (fault.field, place.line, place.column, fault.reason)
    }

    #[test]
    fn values_are_read() {
        let (top, unknown) =
            top("name: x\nitems: [{port: 1}, {port: 2, on: true}]\nlabels: {a: b}\n").unwrap();
        assert_eq!(
            top.items[1],
            Item {
                port: 2,
                on: Some(true)
            }
        );
        assert_eq!(top.labels["a"], "b");
        assert_eq!(unknown, []);
    }

    #[test]
    fn faults_name_field_and_place() {
        assert_eq!(
            fault("name: x\nitems:\n  - port: 1\n  - port: 70000\n"),
            (
                "items[1].port".into(),
                4,
                11,
                "invalid value: integer `70000`, expected u16".into()
            )
        );
        assert_eq!(
            fault("name: x\nlabels: {a: 1}\n"),
            (
                "labels.a".into(),
                2,
                13,
                "integer `1` where text is expected: put it in quotes".into()
            )
        );
        assert_eq!(
            fault("items: []\n"),
            (String::new(), 1, 1, "missing field `name`".into())
        );
        assert_eq!(fault("name: x\nitems: 3\n").0, "items");
    }

    #[test]
    fn unknown_fields_are_all_noted_with_their_place() {
        let (_, unknown) = top("name: x\nextra: {deep: 1}\nitems: [{port: 1, prt: 2}]\n").unwrap();
        let found: Vec<_> = (unknown.iter())
            .map(|fault| {
                (
                    fault.field.as_str(),
                    fault.place.map(|at| (at.line, at.column)),
                )
            })
            .collect();
        assert_eq!(
            found,
            [("extra", Some((2, 1))), ("items[0].prt", Some((3, 19)))]
        );
    }
}
