//! What is wrong in a folder of manifests changes nothing but the list of errors.

#![cfg(feature = "manifests")]
#![allow(clippy::unwrap_used)]

use mesh_discovery::{
    Change,
    manifests::{Changes, Content, Folder},
};

fn workload(name: &str, port: u16) -> String {
    let address = name.as_bytes()[0];
    format!(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec:\n  addresses: [10.0.0.{address}]\n  ports: [{{port: {port}}}]\n"
    )
}

fn in_force(folder: &Folder) -> Vec<(String, u16)> {
    let workloads = folder.workloads().map(|workload| workload.workload("x"));
    workloads
        .map(|workload| (workload.name.clone(), workload.ports[0].port))
        .collect()
}

fn expect(folder: &Folder, workloads: &[(&str, u16)], errors: usize) {
    let found = in_force(folder);
    let found: Vec<_> = found
        .iter()
        .map(|(name, port)| (name.as_str(), *port))
        .collect();
    assert_eq!(found, workloads);
    assert_eq!(folder.errors().len(), errors, "{:?}", folder.errors());
}

fn text(folder: &mut Folder, file: &str, text: &str) -> Changes {
    folder.apply(file, Content::Text(text))
}

#[test]
fn other_files_and_other_documents_count() {
    let mut folder = Folder::new();
    text(&mut folder, "a.yaml", "kind: [\n");
    text(&mut folder, "b.yaml", &workload("b", 1));
    let mixed = [
        workload("c", 1),
        "oops: [\n".to_owned(),
        workload("d", 0),
        workload("e", 1),
    ];
    text(&mut folder, "c.yaml", &mixed.join("---\n"));
    expect(&folder, &[("b", 1), ("c", 1), ("e", 1)], 3);
}

#[test]
fn a_file_that_turns_bad_keeps_what_it_had_until_it_is_right_or_gone() {
    let mut folder = Folder::new();
    let two = |port| workload("a", 1) + "---\n" + &workload("b", port);
    text(&mut folder, "a.yaml", &two(1));
    expect(&folder, &[("a", 1), ("b", 1)], 0);

    let changes = text(&mut folder, "a.yaml", &two(0));
    expect(&folder, &[("a", 1), ("b", 1)], 1);
    assert_eq!(
        (changes.resources, changes.errors, changes.registry),
        (false, true, vec![])
    );
    assert!(folder.keeps("a.yaml"));

    // What is right in it counts at once.
    text(&mut folder, "a.yaml", &(workload("a", 2) + "---\nb: [\n"));
    expect(&folder, &[("a", 2), ("b", 1)], 1);
    text(&mut folder, "a.yaml", "");
    expect(&folder, &[], 0);

    text(&mut folder, "a.yaml", &two(3));
    folder.apply("a.yaml", Content::Unreadable("permission denied"));
    expect(&folder, &[("a", 1), ("b", 3)], 1);
    let changes = folder.apply("a.yaml", Content::Gone);
    expect(&folder, &[], 0);
    assert!(matches!(
        changes.registry[..],
        [Change::RemoveWorkload(_), Change::RemoveWorkload(_)]
    ));
}

#[test]
fn of_two_of_one_name_the_first_counts_and_then_the_other() {
    let mut folder = Folder::new();
    text(&mut folder, "b.yaml", &workload("x", 1));
    let changes = text(&mut folder, "a.yaml", &workload("x", 2));
    expect(&folder, &[("x", 1)], 1);
    assert!(!changes.resources);
    let error = folder.errors()[0].to_string();
    assert_eq!(
        error,
        "a.yaml:1:1: metadata.name: Workload default/x is defined in b.yaml already: remove one"
    );

    // A change of the one that does not count is no change.
    assert_eq!(text(&mut folder, "a.yaml", &workload("x", 3)).registry, []);
    let changes = folder.apply("b.yaml", Content::Gone);
    expect(&folder, &[("x", 3)], 0);
    assert!(matches!(changes.registry[..], [Change::SetWorkload(_)]));

    text(
        &mut folder,
        "a.yaml",
        &(workload("x", 3) + "---\n" + &workload("x", 4)),
    );
    expect(&folder, &[("x", 3)], 1);
}

#[test]
fn a_resource_that_moves_to_another_file_in_one_step_does_not_leave() {
    let mut folder = Folder::new();
    text(&mut folder, "a.yaml", &workload("x", 1));
    let moved = workload("x", 1);
    let changes = folder.apply_all([("a.yaml", Content::Gone), ("b.yaml", Content::Text(&moved))]);
    assert_eq!((changes.resources, changes.registry), (false, vec![]));
    expect(&folder, &[("x", 1)], 0);
}

#[test]
fn a_folder_that_cannot_be_read_keeps_everything() {
    let mut folder = Folder::new();
    text(&mut folder, "a.yaml", &workload("a", 1));
    let changes = folder.unreadable("gone");
    assert!(changes.errors && !changes.resources);
    assert!(!folder.is_readable() && folder.keeps(&folder.errors()[0].file));
    expect(&folder, &[("a", 1)], 1);
    text(&mut folder, "a.yaml", &workload("a", 1));
    expect(&folder, &[("a", 1)], 0);
}

#[test]
fn identities_follow_the_trust_domain() {
    let mut folder = Folder::new();
    text(&mut folder, "a.yaml", &workload("a", 1));
    let config = "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {trustDomain: example.org, leafLifetime: 1h30m, inbound: {defaultPolicy: all-authenticated}}\n";
    let changes = text(&mut folder, "mesh.yaml", config);
    assert!(changes.mesh_config);
    let [Change::SetWorkload(workload)] = &changes.registry[..] else {
        panic!("{changes:?}");
    };
    let identity = "default.default.serviceaccount.identity.linkerd.example.org";
    assert_eq!(workload.identity.as_deref(), Some(identity));
    assert_eq!(folder.mesh_config().leaf_lifetime.as_secs(), 5400);
    assert_eq!(
        folder.mesh_config().default_policy.as_str(),
        "all-authenticated"
    );

    let changes = text(
        &mut folder,
        "other.yaml",
        &config.replace("example.org", "example.com"),
    );
    assert!(!changes.mesh_config, "the first counts");
    assert_eq!(folder.errors().len(), 1);
    folder.apply("mesh.yaml", Content::Gone);
    assert_eq!(folder.mesh_config().trust_domain, "example.com");
    folder.apply("other.yaml", Content::Gone);
    assert_eq!(folder.mesh_config().trust_domain, "cluster.local");
}
