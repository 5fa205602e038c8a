use std::fmt;
use std::num::NonZeroU16;

/// What a policy was made from: an implicit default or a resource.
///
/// Metrics take their parent, route and backend labels from it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Meta {
    /// A configuration that no resource describes, e.g. `all-authenticated`.
    Default {
        /// Its name.
        name: String,
    },
    /// A resource, such as a `Service` or an `HTTPRoute`.
    Resource(Resource),
}

/// A reference to a resource.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Resource {
    /// API group; `core` or empty for the core group.
    pub group: String,
    /// Kind, e.g. `Service`.
    pub kind: String,
    /// Name within the namespace.
    pub name: String,
    /// Namespace; empty when the resource has none.
    pub namespace: String,
    /// A named part of the resource; empty when the whole is meant.
    pub section: String,
    /// A port of the resource, when one is meant.
    pub port: Option<NonZeroU16>,
}

impl Meta {
    /// An implicit configuration called `name`.
    pub fn default_named(name: impl Into<String>) -> Self {
        Self::Default { name: name.into() }
    }

    /// The API group; empty for a default.
    pub fn group(&self) -> &str {
        match self {
            Self::Default { .. } => "",
            Self::Resource(resource) => &resource.group,
        }
    }

    /// The kind; `default` for a default.
    pub fn kind(&self) -> &str {
        match self {
            Self::Default { .. } => "default",
            Self::Resource(resource) => &resource.kind,
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Self::Default { name } => name,
            Self::Resource(resource) => &resource.name,
        }
    }

    /// The namespace; empty for a default.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Default { .. } => "",
            Self::Resource(resource) => &resource.namespace,
        }
    }

    /// The section; empty when there is none.
    pub fn section(&self) -> &str {
        match self {
            Self::Default { .. } => "",
            Self::Resource(resource) => &resource.section,
        }
    }

    /// The port, when the resource names one.
    pub fn port(&self) -> Option<NonZeroU16> {
        match self {
            Self::Default { .. } => None,
            Self::Resource(resource) => resource.port,
        }
    }
}

impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { name } => write!(f, "default/{name}"),
            Self::Resource(resource) => {
                f.write_str(&resource.kind)?;
                if !resource.namespace.is_empty() {
                    write!(f, "/{}", resource.namespace)?;
                }
                write!(f, "/{}", resource.name)?;
                if let Some(port) = resource.port {
                    write!(f, ":{port}")?;
                }
                Ok(())
            }
        }
    }
}
