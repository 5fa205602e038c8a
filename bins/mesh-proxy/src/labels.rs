//! Metric labels of what policies are made from.

use mesh_metrics::ResourceLabels;
use mesh_policy::Meta;

/// The labels of a resource, or of an implicit default.
#[must_use]
pub fn resource(meta: &Meta) -> ResourceLabels {
    let mut labels = ResourceLabels::new(meta.group(), meta.kind(), meta.namespace(), meta.name());
    meta.section().clone_into(&mut labels.section);
    labels.port = meta.port().map(u16::from);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    #[test]
    fn every_part_of_a_resource_is_a_label() {
        let labels = resource(&Meta::Resource(mesh_policy::Resource {
            group: "core".to_owned(),
            kind: "Service".to_owned(),
            name: "web".to_owned(),
            namespace: "shop".to_owned(),
            section: "http".to_owned(),
            port: NonZeroU16::new(80),
        }));
        let mut expected = ResourceLabels::new("core", "Service", "shop", "web").with_port(80);
        expected.section = "http".to_owned();
        assert_eq!(labels, expected);
        assert_eq!(
            resource(&Meta::default_named("x")),
            ResourceLabels::default_named("x")
        );
    }
}
