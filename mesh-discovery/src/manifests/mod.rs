//! A folder of YAML: `Service` of `v1`, and `Workload` and `MeshConfig` of `mesh-rs.io/v1alpha1`.
//!
//! [`parse`] and [`Folder`] are values that touch no file; [`Watcher`] feeds a folder of the file
//! system into them and [`Folder::read`] does so once. Nothing that is wrong takes anything else
//! down: of a file with errors the documents that are right count, and for the rest of it what
//! counted before.
//!
//! ```
//! use mesh_discovery::{Registry, View, manifests::{Content, Folder}};
//!
//! let text = "
//! apiVersion: v1
//! kind: Service
//! metadata: {name: web, namespace: shop}
//! spec:
//!   selector: {app: web}
//!   ports: [{port: 80, targetPort: http}]
//! ---
//! apiVersion: mesh-rs.io/v1alpha1
//! kind: Workload
//! metadata: {name: web-1, namespace: shop, labels: {app: web}}
//! spec:
//!   serviceAccount: web
//!   addresses: [10.0.0.1]
//!   ports: [{name: http, port: 8080, meshPort: 14143, protocol: http}]
//! ";
//! let mut folder = Folder::new();
//! let changes = folder.apply("web.yaml", Content::Text(text));
//! assert_eq!(folder.errors(), []);
//!
//! let mut registry = Registry::new(());
//! registry.apply(changes.registry);
//! let web = registry.service_by_authority("web.shop", "cluster.local").unwrap().0;
//! let endpoint = registry.endpoints(&web.view(80))[0];
//! assert_eq!(endpoint.address(), "10.0.0.1:14143".parse().unwrap());
//! assert_eq!(endpoint.identity(), Some("web.shop.serviceaccount.identity.linkerd.cluster.local"));
//!
//! // A mistake changes nothing but the list of errors.
//! let changes = folder.apply("web.yaml", Content::Text(&text.replace("8080", "0")));
//! assert_eq!(changes.registry, []);
//! assert_eq!(
//!     folder.errors()[0].to_string(),
//!     "web.yaml:15:30: spec.ports[0].port: 0 is no port: must be 1 to 65535",
//! );
//! ```

mod addresses;
mod checks;
mod document;
mod folder;
mod freeze;
mod inode;
mod kinds;
mod parse;
mod rotation;
mod scan;
mod service;
mod tree;
mod watch;
mod workload;

pub use folder::{Changes, Content, FILES, Folder};
pub use freeze::Freeze;
pub use kinds::{API_VERSION, DefaultPolicy, MeshConfig, Ready, Resource, Run, WorkloadManifest};
pub use parse::{FILE_BYTES, FILE_DOCUMENTS, Key, ManifestError, parse};
pub use rotation::{DrainPolicy, Rotation, RotationPhase};
pub use watch::{Options, Watcher};
