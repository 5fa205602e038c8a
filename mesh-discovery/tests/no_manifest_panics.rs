//! Whatever a file holds, reading it gives resources and errors, and bounded ones.

#![cfg(feature = "manifests")]

use mesh_discovery::manifests::{Content, Folder, parse};
use proptest::prelude::*;

const RIGHT: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: mesh-rs.io/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec:
  addresses: [10.0.0.1]
  ports: [{name: http, port: 8080, meshPort: 14143, protocol: http}]
  run: {command: [./web], ready: {httpGet: /}}
---
apiVersion: mesh-rs.io/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {leafLifetime: 24h, inbound: {defaultPolicy: deny}}
";

fn check(text: &str) {
    let (resources, errors) = parse("f.yaml", text);
    let lines = text.lines().count() + 1;
    for error in &errors {
        assert!(error.line <= lines + 1, "{error} of {lines} lines");
        assert!(!error.reason.is_empty());
    }
    let mut folder = Folder::new();
    folder.apply("f.yaml", Content::Text(text));
    let counts = folder.services().count() + folder.workloads().count();
    assert!(counts <= resources.len());
    folder.apply("f.yaml", Content::Gone);
    assert_eq!(folder.services().count() + folder.workloads().count(), 0);
    assert!(folder.errors().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn what_looks_like_yaml(text in r#"([ -]{0,4}[a-z&*!|>%@'"?#0-9]{0,4}(: |[\[\]{},]|\n|---\n|\t)){0,60}"#) {
        check(&text);
    }

    #[test]
    fn manifests_with_something_else_in_them(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..30usize, r#"[ -~\n\u{e9}]{0,8}"#), 1..4),
    ) {
        let mut text = RIGHT.to_owned();
        for (at, length, new) in edits {
            let floor = |at: usize| (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let start = floor(at.index(text.len() + 1));
            let end = floor(start + length).max(start);
            text.replace_range(start..end, &new);
        }
        check(&text);
    }
}
